"""How the report looks, on a screen and on A4."""

from typing import Final

from markupsafe import Markup

CSS: Final = Markup("""
:root { --ink: #1d262c; --soft: #5a6770; --line: #dbe1e5; --blue: #1f5f8b; --pale: #f4f7f9; --red: #a83a28; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; color: var(--ink); background: #fff;
  margin: 0 auto; max-width: 1040px; padding: 32px 28px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 8px; padding-top: 12px; border-top: 2px solid var(--blue); }
h3 { font-size: 15px; margin: 20px 0 6px; }
p { margin: 8px 0; }
p.lead, p.note, .soft { color: var(--soft); } p.note { font-size: 12.5px; }
p.uids { font-size: 11px; color: var(--soft); overflow-wrap: anywhere; }
code { font: 12px ui-monospace, "Liberation Mono", monospace; color: var(--soft); overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; margin: 8px 0; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
th { font-weight: 600; color: var(--soft); }
thead th { border-bottom-color: var(--soft); vertical-align: bottom; }
td:first-child { font-weight: 600; }
table.main td { font-size: 14px; padding: 8px 12px 8px 0; }
table.wide { font-size: 12.5px; } table.wide td { padding-right: 8px; }
table.group { margin-bottom: 18px; } table.group th:first-child { width: 19%; }
table.facts th { width: 130px; vertical-align: top; } table.facts td { font-weight: 400; vertical-align: top; }
.figure { white-space: nowrap; } .figure small { font-size: 11px; font-weight: 400; color: var(--soft); }
table.small { font-size: 11.5px; } table.small td { overflow-wrap: anywhere; font-weight: 400; }
ul { padding-left: 20px; margin: 8px 0; } li { margin: 4px 0; }
.box { border-left: 4px solid var(--red); background: #fbf2ef; padding: 8px 16px; margin: 14px 0; }
.box p { margin: 4px 0; }
.tiles { display: grid; grid-template-columns: repeat(5, 1fr); gap: 10px; margin: 16px 0; }
.tiles div { background: var(--pale); border-radius: 6px; padding: 10px 12px; display: flex; flex-direction: column; }
.tiles span { font-size: 12px; color: var(--soft); } .tiles b { font-size: 22px; line-height: 1.3; }
.tiles small { font-size: 11.5px; color: var(--soft); }
.tiles em { font-style: normal; font-size: 12px; color: var(--soft); }
.charts { display: grid; grid-template-columns: 320fr 490fr; gap: 24px; align-items: start; }
figure { margin: 10px 0; break-inside: avoid; }
figcaption { color: var(--soft); font-size: 12px; line-height: 1.4; }
svg text { font-size: 11px; fill: var(--soft); }
svg.chart { width: 100%; height: auto; display: block; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: #9aa7b0; } svg .chance { stroke: #9aa7b0; stroke-dasharray: 2 4; }
svg .curve { fill: none; stroke: var(--blue); stroke-width: 2; }
svg .in-use { fill: #fff; stroke: var(--ink); stroke-width: 2; } svg .proposed { fill: var(--red); }
svg .with { fill: var(--red); } svg .without { fill: #8fa9bb; }
svg line.limit { stroke: var(--ink); stroke-dasharray: 4 3; } svg text.limit { fill: var(--ink); }
svg.bar { width: 94px; height: 14px; display: block; } svg.bar .reach { stroke: var(--blue); stroke-width: 3; }
svg.bar circle { fill: var(--blue); } svg.bar .axis { stroke: var(--line); }
.sheet { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; }
.sheet figure { margin: 0; border-top: 3px solid var(--red); } .sheet figure.alarm { border-top-color: #8fa9bb; }
.sheet img, .sheet .empty { width: 100%; aspect-ratio: 1; display: block; background: #000; object-fit: contain; }
.sheet .empty { background: var(--pale); color: var(--soft); display: grid; place-items: center; font-size: 12px; }
.sheet figcaption { font-size: 11.5px; padding-top: 4px; overflow-wrap: anywhere; }
.sheet figcaption b { color: var(--ink); }
.sign { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; margin-top: 12px; break-inside: avoid; }
.sign div { border: 1px solid var(--soft); border-radius: 4px; height: 84px; padding: 6px 10px; }
.sign span { font-size: 12px; color: var(--soft); }
@page { size: A4; margin: 15mm 14mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 11px; }
  h1 { font-size: 19px; } h2 { font-size: 14px; margin-top: 20px; } h3 { font-size: 11.5px; }
  table, table.main td { font-size: 10px; } table.wide { font-size: 9px; } table.small { font-size: 8.5px; }
  th, td { padding: 3px 8px 3px 0; } p.note, figcaption, .sheet figcaption { font-size: 9px; }
  .tiles b { font-size: 16px; } .tiles span, .tiles em, .tiles small { font-size: 9px; } code { font-size: 9px; }
  svg.bar { width: 62px; height: 10px; } .figure small { font-size: 8px; }
  tr, figure, .box, .tiles { break-inside: avoid; } h2, h3, thead { break-after: avoid; }
  .box, .tiles div, .sheet .empty, svg, img { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media screen and (max-width: 720px) {
  .tiles, .sheet { grid-template-columns: repeat(2, 1fr); } .charts { display: block; } }
""")
