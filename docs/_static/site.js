// The theme's buttons that unfold a part of the navigation have a symbol only.
document.querySelectorAll("nav li > details > summary").forEach((summary) => {
  const page = summary.closest("li").querySelector("a").textContent.trim();
  summary.setAttribute("aria-label", `Pages below ${page}`);
});

// Makes the ledger sortable and searchable. Without JavaScript it is still a complete table.
document.querySelectorAll("table.ledger").forEach((table) => {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const search = document.getElementById("ledger-search");
  const count = document.getElementById("ledger-count");

  const text = (row, i) => row.cells[i].textContent.trim();
  const number = (s) => parseFloat(s.replace(/^value /, ""));
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (!isNaN(x) && !isNaN(y)) return x - y;
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return a.localeCompare(b, "en", { numeric: true });
  };

  const sortBy = (i, header) => {
    const down = header.getAttribute("aria-sort") === "ascending";
    [...table.tHead.rows[0].cells].forEach((h) => h.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sorted = [...rows].sort((a, b) => (down ? -1 : 1) * compare(text(a, i), text(b, i)));
    body.append(...sorted);
  };

  [...table.tHead.rows[0].cells].forEach((header, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.replaceChildren(button);
    button.addEventListener("click", () => sortBy(i, header));
  });

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
    });
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  search.addEventListener("input", filter);
  filter();
});
