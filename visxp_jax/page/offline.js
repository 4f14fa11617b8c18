"use strict";
// Where answers come from: what the page itself holds.
const source = (() => {
  const { about, clips, thumbnails, vectors, sounds, results } = JSON.parse(document.getElementById("page-data").textContent);
  const GOLDEN = 0.6180339887;
  const sides = { sight: "video", sound: "audio" };
  const rows = {};
  const lengths = {};
  for (const [name, { width, data }] of Object.entries(vectors)) {
    const bytes = new Int8Array(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
    rows[name] = clips.map((_, i) => bytes.subarray(i * width, (i + 1) * width));
    lengths[name] = rows[name].map((row) => Math.hypot(...row));
  }
  const cosine = (name, i, j) => {
    const [a, b] = [rows[name][i], rows[name][j]];
    let sum = 0;
    for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
    return sum / (lengths[name][i] * lengths[name][j]);
  };
  const score = (by, i, j) => {
    const names = by === "both" ? ["video", "audio"] : [sides[by]];
    if (names.some((name) => !lengths[name][i] || !lengths[name][j])) return null;
    return names.reduce((sum, name) => sum + cosine(name, i, j), 0) / names.length;
  };
  const fileOf = (clip) => clip.key + "\n" + clip.path;
  const evenly = (items, number, phase) =>
    items.length <= number ? items : Array.from({ length: number }, (_, i) => items[Math.floor(((i + phase) / number) * items.length)]);
  const spread = (found, turn) => {
    if (found.length <= results) return found;
    const phase = (0.5 + turn * GOLDEN) % 1;
    const files = new Map();
    for (const clip of found) {
      if (!files.has(fileOf(clip))) files.set(fileOf(clip), []);
      files.get(fileOf(clip)).push(clip);
    }
    const chosen = evenly([...files.values()], results, phase);
    return chosen.flatMap((each) => evenly(each, Math.floor(results / chosen.length), phase));
  };
  const at = (path, from, second) => {
    const clip = clips.find((clip) => clip.path === path && (from === null || clip.key === from) && (second === null || (clip.start_s <= second && second < clip.end_s)));
    if (!clip) throw new Error("This page has no such file, or not that second of it.");
    return clip;
  };
  const answer = (state) => {
    const wanted = new Set(state.getAll("in"));
    const allowed = clips.filter((clip) => !wanted.size || wanted.has(clip.key));
    if (state.has("like")) {
      const query = at(state.get("like"), state.get("from"), Number(state.get("at") || 0));
      const by = state.get("by") || "sight";
      const scored = allowed.filter((clip) => clip !== query)
        .map((clip) => ({ ...clip, score: score(by, query.row, clip.row) }))
        .filter((clip) => clip.score !== null)
        .sort((a, b) => b.score - a.score || a.row - b.row);
      const seen = new Set();
      const hits = state.has("every") ? scored : scored.filter((clip) => !seen.has(fileOf(clip)) && seen.add(fileOf(clip)));
      return { query, hits: hits.slice(0, results), total: allowed.length };
    }
    if (state.has("file")) {
      const query = at(state.get("file"), state.get("from"), null);
      const hits = clips.filter((clip) => fileOf(clip) === fileOf(query)).sort((a, b) => a.start_s - b.start_s);
      return { query, hits: evenly(hits, 240, 0.5), total: hits.length };
    }
    const words = (state.get("name") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const found = allowed.filter((clip) => words.every((word) => clip.path.toLowerCase().includes(word)));
    return { query: null, hits: spread(found, Number(state.get("others") || 0)), total: found.length };
  };
  return {
    about: async () => about,
    answer: async (state) => answer(state),
    thumbnail: (clip) => (thumbnails[clip.row] ? "data:image/jpeg;base64," + thumbnails[clip.row] : ""),
    play: (clip, stage, failed) => {
      const image = document.createElement("img");
      image.src = source.thumbnail(clip);
      image.alt = `${clip.name} at ${clip.at}`;
      stage.replaceChildren(image);
      if (sounds[clip.row] === null) {
        failed(clip.heard ? "This page does not hold the sound of this second." : "This second has no sound.");
        return image;
      }
      const button = document.createElement("button");
      button.type = "button";
      button.className = "hear";
      button.dataset.sound = sounds[clip.row];
      button.append("Play its sound");
      stage.append(button);
      return button;
    },
  };
})();
