"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");

  // Text and grid in the colours that the page has now; on paper, those of the light page.
  function coloured(layout, printing) {
    const style = getComputedStyle(document.documentElement);
    const colour = name => style.getPropertyValue(name).trim();
    const ink = printing ? "#1b2026" : colour("--ink"), grid = printing ? "#e4e8ec" : colour("--grid");
    const axis = given => ({ ...given, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickcolor: grid });
    return {
      ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12.5, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: grid, font: { color: ink } },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis), dragmode: touch.matches ? false : "zoom",
      shapes: (layout.shapes || []).map(shape => ({ ...shape, line: { ...shape.line, color: ink } })),
    };
  }

  function draw(id, printing) {
    const { data, layout } = figures[id];
    const bars = data.map(trace => trace.error_x ? { ...trace, error_x: { ...trace.error_x, color: printing ? "#1b2026" : getComputedStyle(document.documentElement).getPropertyValue("--ink").trim() } } : trace);
    const size = printing ? { width: 640, autosize: false } : { width: undefined, autosize: true };
    return Plotly.react(id, bars, { ...coloured(layout, printing), ...size }, { responsive: true, displayModeBar: false, doubleClick: "reset", staticPlot: false });
  }

  // A figure is drawn when it comes near the window: one in a closed fold has no width.
  const drawn = new Set(), near = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
    near.unobserve(entry.target);
    drawn.add(entry.target.id);
    draw(entry.target.id, false);
  }), { rootMargin: "800px 0px" });

  addEventListener("beforeprint", () => document.querySelectorAll("main > section details").forEach(fold => {
    if (!fold.closest("figure")) { fold.dataset.open = fold.open; fold.open = true; }
  }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-open]").forEach(fold => { fold.open = fold.dataset.open === "true"; }));
  if (window.Plotly) {
    document.querySelectorAll(".plot").forEach(plot => near.observe(plot));
    dark.addEventListener("change", () => drawn.forEach(id => draw(id, false)));
    addEventListener("beforeprint", () => Object.keys(figures).forEach(id => draw(id, true)));
    addEventListener("afterprint", () => document.querySelectorAll(".plot").forEach(plot => {
      if (drawn.has(plot.id)) { draw(plot.id, false); } else { Plotly.purge(plot); near.observe(plot); }
    }));
  }

  // A column that holds numbers is sorted by them; what is no number comes last.
  const number = text => parseFloat(text.replace(/,/g, ""));
  function sort(header) {
    const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
    const rising = header.getAttribute("aria-sort") !== "ascending";
    const text = row => row.cells[column].textContent.trim();
    const rows = [...body.rows], numeric = rows.some(row => text(row)) && rows.every(row => !text(row) || !Number.isNaN(number(text(row))));
    const order = (a, b) => {
      const [x, y] = [text(a), text(b)];
      if (!x || !y) return x ? -1 : y ? 1 : 0;
      return (rising ? 1 : -1) * (numeric ? number(x) - number(y) : x.localeCompare(y, undefined, { numeric: true }));
    };
    body.append(...rows.sort(order));
    table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  }
  document.querySelectorAll("table.sortable thead th").forEach(header => header.querySelector("button").addEventListener("click", () => sort(header)));

  document.documentElement.dataset.ready = "true";
})();
