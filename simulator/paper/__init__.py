"""The experiments of the two papers, SARATHI and Sarathi-Serve: what they published beside what comes out here."""
