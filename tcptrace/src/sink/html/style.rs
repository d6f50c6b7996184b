//! How the page looks: light and dark, on paper and in few columns. Colours are those of Okabe and Ito, which every eye can tell apart.

/// Inside of `<style>`.
pub const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--card:#f5f7f9;--fg:#1b1f24;--dim:#59636e;--line:#d5dbe1;--bad:#b23b00;--warn:#7a5600;--good:#00734f;\
--fin:#3f8fc6;--rst:#d55e00;--refused:#e69f00;--timeout:#cc79a7;--given-up:#7f4a88;--unknown:#8a929a;--open:#009e73}
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--card:#1d2329;--fg:#e4e8ec;--dim:#9aa6b2;--line:#38424c;--bad:#ff9460;--warn:#f0bd4f;--good:#4fd0a0;\
--fin:#56b4e9;--rst:#e8702a;--refused:#e6a817;--timeout:#d98ab8;--given-up:#b07fb9;--unknown:#8f99a3;--open:#1fb589}}
*{box-sizing:border-box}
html{background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif;-webkit-text-size-adjust:100%}
body{margin:0}
main{max-width:68rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.5rem 0 .75rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:.95rem;margin:1.5rem 0 .4rem;overflow-wrap:anywhere}
p{margin:.4rem 0}
a{color:inherit}
code{font:.9em ui-monospace,monospace}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin-top:1rem;font-size:.9rem}
.sub,.note,.dim{color:var(--dim)}
.bad{color:var(--bad)}.warn{color:var(--warn)}.good{color:var(--good)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.75rem;margin:1.25rem 0 0;padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.45rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles span{color:var(--dim);font-size:.85rem}
dl{display:grid;grid-template-columns:minmax(6.5rem,max-content) 1fr;gap:.25rem 1.25rem;margin:.5rem 0}
dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}
dd span+span::before{content:'\\b7';color:var(--dim);margin:0 .5em}
ul.wrong{list-style:none;margin:0;padding:0}
ul.wrong li{border-left:.25rem solid var(--rst);background:var(--card);margin:.5rem 0;padding:.5rem .8rem;overflow-wrap:anywhere}
ul.wrong code{display:block;color:var(--dim)}
.fine{border-left:.25rem solid var(--open);background:var(--card);padding:.5rem .8rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--dim);font-weight:600}
th.r,td.r{text-align:right}
td:first-child,th:first-child{padding-left:0}
.bars td.bar{width:60%;min-width:8rem}
.bars i{display:block;height:.85rem;min-width:2px;border-radius:2px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
figure{margin:1rem 0}
figcaption{font-size:.88rem;color:var(--dim);margin-bottom:.35rem}
svg{display:block;width:100%;height:auto;min-width:44rem}\
svg.ladder{min-width:40rem}
svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
svg text.strong{fill:var(--fg)}
svg .mono{font-family:ui-monospace,monospace}
svg .grid{stroke:var(--line);stroke-width:1}
svg .life{stroke:var(--line);stroke-width:2}
svg .limit{stroke:var(--rst);stroke-width:1.5;stroke-dasharray:5 4;fill:none}
svg .depth-syn{fill:none;stroke:var(--refused);stroke-width:1.75}
svg .depth-accept{fill:var(--fin);fill-opacity:.22;stroke:var(--fin);stroke-width:1.75}
svg .arrow{stroke:var(--fg);stroke-width:1.5;fill:none}
svg .head{fill:var(--fg)}
svg .concluded{stroke-dasharray:3 4;opacity:.75}
svg .arrow.bad{stroke:var(--bad)}svg .head.bad{fill:var(--bad)}svg text.bad{fill:var(--bad)}
svg .arrow.warn{stroke:var(--warn)}svg .head.warn{fill:var(--warn)}svg text.warn{fill:var(--warn)}
svg .hit{fill:transparent}
svg g:hover>.hit{fill:var(--fg);fill-opacity:.07}
.fin{fill:var(--fin);background:var(--fin)}.rst{fill:var(--rst);background:var(--rst)}
.refused{fill:var(--refused);background:var(--refused)}.timeout{fill:var(--timeout);background:var(--timeout)}
.given-up{fill:var(--given-up);background:var(--given-up)}.unknown{fill:var(--unknown);background:var(--unknown)}
.open{fill:var(--open);background:var(--open)}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;color:var(--dim);list-style:none;margin:.35rem 0 0;padding:0}
.key i{display:inline-block;width:.75rem;height:.75rem;border-radius:2px;margin-right:.4em;vertical-align:-1px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:0 1.5rem}
.pair svg{min-width:26rem}
footer{margin-top:3rem;color:var(--dim);font-size:.85rem}
@media(max-width:34rem){main{padding:1rem .9rem 3rem}dl{grid-template-columns:1fr;gap:0 0}dd{margin-bottom:.4rem}}
@media print{html{font-size:11px}main{max-width:none;padding:0}nav{display:none}h2,h3,figcaption{break-after:avoid}\
figure,table,ul.wrong li{break-inside:avoid}.scroll{overflow:visible}svg{min-width:0}}
";
