"use strict";
// Times as other programs read them, and lists as files for spreadsheets.
const lists = (() => {
  const timecode = (seconds) => {
    const ms = Math.round(1000 * seconds);
    const two = (n) => String(Math.floor(n) % 60).padStart(2, "0");
    const hours = String(Math.floor(ms / 3.6e6)).padStart(2, "0");
    return `${hours}:${two(ms / 60000)}:${two(ms / 1000)}.${String(ms % 1000).padStart(3, "0")}`;
  };
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    // A spreadsheet would run a cell that begins like this; some split at semicolons.
    const inert = value.replace(/(^|[;\t\r\n])(?=[=+\-@])/g, "$1'");
    return `"${inert.replaceAll('"', '""')}"`;
  };
  // Rows of values by column, all of the same columns.
  const save = (name, rows) => {
    if (!rows.length) return;
    const lines = [Object.keys(rows[0]), ...rows.map((row) => Object.values(row))];
    const text = lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
    const a = document.createElement("a");
    // By its first character Excel knows that it is UTF-8.
    a.href = URL.createObjectURL(new Blob(["\ufeff" + text], { type: "text/csv" }));
    a.download = name;
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10000);
  };
  return { timecode, save };
})();
