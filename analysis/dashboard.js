"use strict";

// Each figure of the page is a base figure and, for every choice of its selects, what differs from it.
const views = JSON.parse(document.getElementById("views").textContent);

function chosenFigure(view, selects) {
  const patch = view.patches[selects.map((select) => select.selectedIndex).join(",")];
  const traces = patch.data.length === view.base.data.length
    ? view.base.data.map((trace, place) => ({ ...trace, ...patch.data[place] }))
    : patch.data;
  return structuredClone({ data: traces, layout: { ...view.base.layout, ...patch.layout } });
}

function draw(figure) {
  const selects = [...figure.parentElement.querySelectorAll("select")];
  const { data, layout } = chosenFigure(views[figure.dataset.view], selects);
  const color = getComputedStyle(document.documentElement).getPropertyValue("--text").trim();
  layout.font = { ...layout.font, color };
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  options.toImageButtonOptions = { format: "svg", filename: figure.dataset.view };
  Plotly.react(figure.querySelector(".plot"), data, layout, options).then((plot) => {
    for (const button of plot.querySelectorAll(".modebar-btn")) {
      button.setAttribute("aria-label", button.dataset.title);
    }
  });
  figure.parentElement.querySelector(".twin").replaceChildren(table(data));
}

function table(data) {
  return data[0].type === "heatmap" ? gridTable(data[0]) : lineTable(data);
}

function plainText(markup) {
  return new DOMParser().parseFromString(String(markup ?? "").replaceAll("<br>", ", "), "text/html").body.textContent;
}

function rowsToTable(head, rows) {
  const result = document.createElement("table");
  const line = (section, texts, tag) => {
    const row = section.insertRow();
    texts.forEach((text, place) => {
      const cell = document.createElement(place ? tag : "th");
      if (cell.tagName === "TH") cell.scope = tag === "th" ? "col" : "row";
      cell.textContent = plainText(text);
      row.append(cell);
    });
  };
  line(result.createTHead(), head, "th");
  const body = result.createTBody();
  rows.forEach((row) => line(body, row, "td"));
  return result;
}

function gridTable(trace) {
  const values = trace.text.map((row, r) => row.map((text, c) => [text, trace.customdata?.[r][c]].filter(Boolean).join("  ")));
  return rowsToTable(["", ...trace.x], trace.y.map((name, r) => [name, ...values[r]]));
}

function lineTable(data) {
  // Several lines of one trace are parted by points without an x.
  const rows = data.flatMap((trace) => trace.x.map((x, place) => [
    trace.name,
    trace.type === "bar" ? trace.y[place] : trace.text ? trace.text[place] : `${trace.yaxis ?? "y"} at ${x}`,
    trace.type === "bar" ? x ?? "–" : trace.y[place] ?? "–",
    trace.type === "bar" || x !== null,
  ]).filter((row) => row.pop()));
  return rowsToTable(["line", "point", "value"], rows);
}

function makeSortable(tableElement) {
  const headers = [...tableElement.tHead.rows[0].cells];
  headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "descending";
    headers.forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", down ? "ascending" : "descending");
    const rows = [...tableElement.tBodies[0].rows].map((row) => [sortKey(row.cells[column]), row]);
    rows.sort(([a], [b]) => compare(a, b, down ? 1 : -1));
    tableElement.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

function sortKey(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.textContent === "–" ? null : cell.textContent;
}

// Missing values stay last whichever way the column is sorted.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
}

function makeFilter(input, output, tableElement) {
  const rows = [...tableElement.tBodies[0].rows];
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    output.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  input.addEventListener("input", filter);
  filter();
}

const drawn = [...document.querySelectorAll("figure[data-view]")];
for (const figure of drawn) {
  figure.parentElement.querySelectorAll("select").forEach((select) => select.addEventListener("change", () => draw(figure)));
  draw(figure);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
const trials = document.querySelector("table.trials");
makeSortable(trials);
makeFilter(document.querySelector("input[type=search]"), document.querySelector("output"), trials);
