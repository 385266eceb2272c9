"""The style sheet of the report."""

CSS = """
:root { --ink: #1b232c; --soft: #55606c; --line: #dfe4e9; --back: #f6f8fa;
  --win: #0a7a4b; --win-back: #e7f6ee; }
* { box-sizing: border-box; }
body { margin: 0; background: white; color: var(--ink); line-height: 1.5;
  font: 16px/1.5 Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 18px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 48px 0 4px; letter-spacing: -0.01em; }
p { margin: 0 0 12px; }
.caption { color: var(--soft); max-width: 900px; }
.note { border-left: 4px solid #0072b2; background: var(--back); padding: 10px 16px; margin: 0 0 20px; }
.note.caution { border-color: #d97706; background: #fff7e8; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 14px 28px;
  margin: 0 0 20px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; overflow-wrap: anywhere; }
.verdicts { margin: 0 0 8px; padding: 0; list-style: none; }
.verdicts li { padding: 8px 0 8px 26px; position: relative; border-bottom: 1px solid var(--line); }
.verdicts li::before { content: ""; position: absolute; left: 4px; top: 17px; width: 9px; height: 9px;
  border-radius: 50%; background: #b8c2cc; }
.verdicts li:first-child { font-size: 18px; font-weight: 600; }
.verdicts li:first-child::before { background: var(--win); top: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.metrics { table-layout: fixed; min-width: 640px; }
.metrics th:first-child { width: 215px; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; white-space: normal;
  overflow-wrap: break-word; }
.many thead th { font-size: 13px; }
.many th, .many td { padding: 5px 8px; }
tbody th { font-weight: 600; padding-top: 18px; color: var(--soft); font-size: 13px;
  text-transform: uppercase; letter-spacing: 0.04em; }
td.best { color: var(--win); background: var(--win-back); font-weight: 700; }
.wrap td { white-space: normal; overflow-wrap: anywhere; text-align: left; vertical-align: top; }
.wrap td:first-child { white-space: nowrap; font-weight: 600; }
code { font: 13px/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, monospace; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px;
  white-space: pre-wrap; margin: 0 0 20px; }
summary { cursor: pointer; color: var(--soft); margin: 8px 0; }
figure { margin: 0; min-width: 0; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
@media (max-width: 720px) { main { padding: 16px 12px 40px; } h1 { font-size: 24px; } }
"""
