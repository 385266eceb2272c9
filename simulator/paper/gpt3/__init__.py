"""GPT-3 on 64 GPUs: pipeline bubbles and completion times (SARATHI, section 5.3), and the same today."""
