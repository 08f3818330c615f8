"use strict";
// The key of a cell without a value, whose row comes last in both directions.
const NONE = 1e300;
// Sort buttons in the headings of sortable tables. Without this script the tables are the same, in the file's order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    if ("key" in cell.dataset) return Number(cell.dataset.key);
    const text = cell.textContent.trim();
    if (text === "-") return NONE;
    // A figure without a key says it itself: 1,234 or 0.75 pp.
    const figure = cell.classList.contains("figure") || (column && table.classList.contains("numbers"));
    const number = figure ? Number.parseFloat(text.replaceAll(",", "")) : NaN;
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const missing = (row) => key(row, column) === NONE;
      const order = (a, b) => missing(a) - missing(b) || (down ? -1 : 1) * compare(key(a, column), key(b, column));
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}
