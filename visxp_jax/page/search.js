"use strict";
// The page itself; `source` answers its questions. All that it shows is in its address.
(async () => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, css, words) => {
    const element = document.createElement(tag);
    if (css) element.className = css;
    if (words !== undefined) element.textContent = words;
    return element;
  };
  const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
  const say = (words) => { byId("status").textContent = words; };
  const state = () => new URLSearchParams(location.hash.slice(1));
  // An address: what is asked, in the collection and with the choice that are set.
  const link = (asked) => {
    const now = state();
    const kept = [...now.getAll("in").map((name) => ["in", name]), ...(now.has("every") ? [["every", "1"]] : [])];
    return "#" + new URLSearchParams([...Object.entries(asked), ...kept]);
  };

  const WAYS = {
    "sight sight": ["Looks like it", "Seconds that look like this", "eye"],
    "sound sound": ["Sounds like it", "Seconds that sound like this", "ear"],
    "both both": ["Looks and sounds like it", "Seconds that look and sound like this", "both"],
    "sight sound": ["Sounds for this picture", "Sounds that go with this picture", "ear"],
    "sound sight": ["Pictures for this sound", "Pictures that go with this sound", "eye"],
  };
  const title = document.title;
  let about = null;
  const offered = (clip) => about.ways.filter(([by]) => {
    if (by === "both") return clip.heard && clip.seen !== false;
    return by === "sight" ? clip.seen !== false : clip.heard;
  });
  const reference = (clip) => (clip.upload ? { upload: clip.upload } : { like: clip.path, at: clip.start_s, from: clip.key });
  const wayLink = (clip, [by, find], words) => {
    const a = make("a", "", words || WAYS[`${by} ${find}`][0]);
    a.href = link({ ...reference(clip), by, find });
    return a;
  };
  const way = (query) => { // that is set, or the first there is
    const now = state();
    const first = offered(query)[0] || ["sight", "sight"];
    const by = now.get("by") || first[0];
    return [by, now.get("find") || by];
  };

  // Cards.
  let hits = [];
  let queried = null;
  const picture = (clip) => {
    const address = source.thumbnail(clip);
    if (!address) return make("span", "noframe", "no picture");
    const image = make("img");
    image.src = address;
    image.alt = "";
    image.loading = "lazy";
    image.decoding = "async";
    image.addEventListener("error", () => image.replaceWith(make("span", "noframe", "no picture")));
    return image;
  };
  const look = (clip, at) => {
    const button = make("button", "look");
    button.type = "button";
    button.dataset.at = at;
    button.setAttribute("aria-label", `Play ${clip.name} at ${clip.at}`);
    button.append(picture(clip), make("i", "", "▶"));
    return button;
  };
  const scoreOf = (clip, across) => {
    const probable = across && about.across === "probability";
    const score = make("span", "score", probable ? `${Math.round(100 * clip.score)}%` : clip.score.toFixed(2));
    score.title = probable ? "How probable it is that the two belong together" : across ? "How well the two go together, at most 1; not a probability" : "How alike the two are; 1 is the same";
    const bar = make("i");
    bar.style.width = `${100 * Math.max(0, Math.min(1, clip.score))}%`;
    score.append(bar);
    return score;
  };
  const agreement = (clip) => {
    const told = make("span", "", `sound fits picture ${Math.round(100 * clip.agreement)}%`);
    told.title = "How probable it is, to the model, that the sound of this second belongs to its picture";
    return told;
  };
  const card = (clip, at, across) => {
    const item = make("li", "hit");
    const name = make("b", "", clip.name);
    name.title = `${clip.folder}/${clip.name}`;
    const where = make("span", "", clip.at + (clip.in ? ` · ${clip.in}` : ""));
    const more = make("span", "more");
    more.append("More by ");
    for (const both of offered(clip).filter(([by, find]) => by === find)) {
      if (more.children.length) more.append(" · ");
      const a = wayLink(clip, both, both[0]);
      a.title = WAYS[both.join(" ")][0];
      a.setAttribute("aria-label", `${WAYS[both.join(" ")][0]}: ${clip.name} at ${clip.at}`);
      more.append(a);
    }
    if (!clip.heard) more.append(" · ", make("span", "mute", "no sound"));
    item.append(look(clip, at));
    if (clip.score !== null) item.append(scoreOf(clip, across));
    item.append(name, where);
    if (clip.shot) item.append(make("span", "", `shot ${clip.shot}`));
    if (clip.agreement !== null) item.append(agreement(clip));
    item.append(more);
    return item;
  };

  // What is searched by.
  const files = new Map(); // of uploads, as long as the page is open: key -> { file, url }
  const preview = (file, url) => {
    const kind = file.type.split("/")[0];
    const tag = { image: "img", audio: "audio", video: "video" }[kind];
    if (!tag) return make("span", "noframe", "no preview");
    const element = make(tag);
    element.src = url;
    if (tag === "img") element.alt = "";
    else Object.assign(element, { controls: true, preload: "metadata" });
    element.addEventListener("error", () => element.replaceWith(make("span", "noframe", "your browser cannot show this file")));
    return element;
  };
  const asking = (query, chosen) => {
    const box = byId("query");
    box.hidden = !query;
    document.body.classList.toggle("asked", Boolean(query));
    if (!query) return box.replaceChildren();
    const told = make("div", "told");
    const ways = make("nav", "ways");
    ways.setAttribute("aria-label", "What to look for");
    for (const each of offered(query)) {
      const a = wayLink(query, each);
      if (chosen && each.join() === chosen.join()) a.setAttribute("aria-current", "true");
      ways.append(a);
    }
    const name = make("b", "", query.name);
    let shown;
    const where = make("p", "", "");
    if (query.upload) {
      const held = files.get(query.upload);
      shown = make("div", "shown");
      shown.append(held ? preview(held.file, held.url) : make("span", "noframe", "your file"));
      where.append("your file");
      if (held && !held.file.type.startsWith("image/")) where.append(", ", secondOf(query, held, shown));
    } else {
      shown = make("div", "shown");
      shown.append(look(query, -1));
      where.textContent = `at ${query.at}${query.in ? ` · ${query.in}` : ""}${query.shot ? ` · shot ${query.shot}` : ""}`;
      const all = make("a", "", "All of this file");
      all.href = link({ file: query.path, from: query.key });
      ways.append(all);
    }
    told.append(name, where, ways);
    box.replaceChildren(shown, told);
  };
  const secondOf = (query, held, shown) => { // which second of a sound or a video
    const label = make("label", "", "at second ");
    const input = make("input");
    Object.assign(input, { type: "number", min: 0, step: 1, value: Math.floor(query.start_s) });
    const go = make("button", "all", "Search by this second");
    go.type = "button";
    go.hidden = true;
    const changed = () => { go.hidden = input.valueAsNumber === Math.floor(query.start_s) || !(input.valueAsNumber >= 0); };
    const search = () => { if (!go.hidden) upload(held.file, input.valueAsNumber); };
    input.addEventListener("input", changed);
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") search(); });
    go.addEventListener("click", search);
    const player = shown.querySelector("video, audio");
    player?.addEventListener("seeked", () => {
      input.value = Math.floor(player.currentTime);
      changed();
    });
    player?.addEventListener("loadedmetadata", () => { player.currentTime = query.start_s; }, { once: true });
    label.append(input, " ", go, make("small", "", " move the player, or type another"));
    return label;
  };
  const upload = async (file, at = 0) => {
    closeViewer();
    if (!source.upload || !about.model) return trouble("This page cannot take files: it has no model.");
    if (file.size > about.limit) return trouble(`${file.name} is too large: ${count(Math.ceil(file.size / 2 ** 20), "MB")}, at most ${count(about.limit / 2 ** 20, "MB")} can be taken. Cut out the part that matters.`);
    busy(`Reading ${file.name} …`);
    try {
      const found = await source.upload(file, at);
      // Another second of a file: what was looked for stays, and so does its player.
      const again = files.get(state().get("upload"))?.file === file;
      const url = again ? files.get(state().get("upload")).url : URL.createObjectURL(file);
      files.set(found.upload, { file, url });
      const heard = found.heard && (again && state().get("by") === "sound" || !found.seen);
      const by = heard ? "sound" : "sight";
      location.hash = link({ upload: found.upload, by, find: by });
    } catch (error) {
      trouble(`${file.name}: ${error.message}`);
    }
  };

  // Results.
  const busy = (words) => {
    document.body.classList.add("busy");
    byId("note").textContent = words;
    say(words);
  };
  const trouble = (words) => {
    document.body.classList.remove("busy");
    const note = make("span", "trouble", words);
    byId("note").replaceChildren(note);
    say(words);
  };
  const started = () => {
    const others = make("a", "", "Show others");
    others.href = link({ others: Number(state().get("others") || 0) + 1 });
    return others;
  };
  const described = (answer, chosen) => { // heading, and what is said below it
    const now = state();
    if (now.has("like") || now.has("upload")) {
      const best = now.has("every") ? "The best seconds" : "The best second of each file";
      const kind = chosen[0] === chosen[1]
        ? "the most alike first. 1.00 would be the same. The numbers only set the order: what is not alike may have 0.9, too."
        : about.across === "probability"
          ? "with how probable it is, to the model, that the two belong together."
          : "what goes best with it first. The numbers only set the order: they are at most 1.00, and no probabilities.";
      return [WAYS[chosen.join(" ")][1], [`${best}, ${kind}`]];
    }
    if (now.has("file")) {
      const some = answer.hits.length < answer.total ? `${count(answer.hits.length, "second")} of its ${answer.total.toLocaleString("en")}, evenly spread` : `${count(answer.total, "second")}, in the order of time`;
      return [`All of ${answer.query.name}`, [`${some}. In ${answer.query.folder}`]];
    }
    const all = answer.hits.length >= answer.total;
    if (now.get("name")) {
      return [`Files named “${now.get("name")}”`, [all ? `${count(answer.total, "second")}.` : `${count(answer.hits.length, "second")} of ${answer.total.toLocaleString("en")}, of as many files as there are.`, ...(all ? [] : [" ", started()])]];
    }
    return ["Something to begin with", ["Press on a picture to see and hear it, and go on from there to what looks or sounds like it. ", ...(all ? [] : [started()])]];
  };
  const filters = () => {
    const now = state();
    byId("every").checked = now.has("every");
    byId("every-label").hidden = !(now.has("like") || now.has("upload"));
    byId("in").value = now.get("in") ?? "*";
    if (document.activeElement !== byId("name")) byId("name").value = now.get("name") || "";
    for (const id of ["start", "over"]) byId(id).href = link({}); // in this collection
    byId("over").hidden = ![...now.keys()].some((name) => name !== "in" && name !== "every");
  };
  let asked = 0;
  let moved = 0;
  const route = async ({ y = 0, focus = false } = {}) => {
    const ticket = ++asked;
    clearTimeout(moved); // of where one was before
    closeViewer();
    filters();
    busy("Searching …");
    let answer;
    try {
      answer = await source.answer(state());
      if (answer.index !== undefined && answer.index !== about.index) await learn();
    } catch (error) {
      if (ticket !== asked) return;
      asking(null);
      hits = [];
      byId("hits").replaceChildren();
      byId("save").hidden = true;
      document.title = title;
      byId("heading").textContent = "That did not work";
      return trouble(error.message);
    }
    if (ticket !== asked) return;
    document.body.classList.remove("busy");
    hits = answer.hits;
    const searched = state().has("like") || state().has("upload");
    const chosen = searched ? way(answer.query) : null;
    queried = answer.query;
    asking(searched ? answer.query : null, chosen);
    const [heading, note] = described(answer, chosen);
    byId("heading").textContent = heading;
    byId("note").replaceChildren(...note);
    const what = searched ? [answer.query.name, heading] : location.hash.length > 1 ? [heading] : [];
    document.title = [...what, title].join(" – ");
    byId("save").hidden = !hits.length;
    const across = searched && chosen[0] !== chosen[1];
    byId("hits").replaceChildren(...hits.map((clip, at) => card(clip, at, across)));
    if (!hits.length) byId("note").replaceChildren("Nothing was found", state().has("in") ? " in this collection." : ".");
    say(`${heading}: ${count(hits.length, "result")}`);
    if (focus) byId("heading").focus({ preventScroll: true });
    scrollTo({ top: y, behavior: "instant" });
  };

  // The viewer.
  const viewer = byId("viewer");
  let viewed = null;
  const view = (at) => {
    const clip = at < 0 ? queried : hits[at];
    if (!clip) return;
    viewed = at;
    byId("viewer-name").textContent = clip.name;
    byId("viewer-why").textContent = "";
    const failed = (words) => { byId("viewer-why").textContent = words; };
    byId("viewer-said").textContent = "";
    const player = source.play(clip, byId("viewer-stage"), failed);
    const now = (time_s) => { byId("viewer-now").textContent = lists.timecode(time_s); };
    now(clip.start_s);
    player.addEventListener("timeupdate", () => {
      if (player.isConnected) now(clip.plays_from_s + player.currentTime);
    });
    const facts = [["Second", `${clip.at} – ${clip.end}`], ["Shot", clip.shot], ["Collection", clip.in], ["Folder", clip.folder]];
    if (clip.agreement !== null) facts.push(["Sound fits picture", `${Math.round(100 * clip.agreement)}%`]);
    byId("viewer-facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => {
      const row = make("div");
      row.append(make("dt", "", name), make("dd", "", value));
      return row;
    }));
    const ways = offered(clip).map((each) => wayLink(clip, each));
    const file = make("a", "", "All of this file");
    file.href = link({ file: clip.path, from: clip.key });
    ways.push(file);
    if (clip.address) {
      const video = make("a", "", "Open the video here");
      Object.assign(video, { href: `${clip.address}#t=${clip.start_s}`, target: "_blank", rel: "noopener" });
      ways.push(video);
    }
    if (source.hierarchy) {
      const tree = make("a", "", "In the hierarchy");
      tree.href = source.hierarchy(clip);
      tree.title = "Groups, and groups of groups, of what looks and sounds alike around it";
      tree.addEventListener("click", ({ ctrlKey, metaKey }) => {
        if (!ctrlKey && !metaKey) byId("viewer-said").textContent = "The hierarchy is being made …";
      });
      ways.push(tree);
    }
    byId("viewer-ways").replaceChildren(...ways);
    byId("viewer-before").disabled = at <= 0;
    byId("viewer-after").disabled = at < 0 || at >= hits.length - 1;
    byId("viewer-at").textContent = at < 0 ? "" : `${at + 1} of ${hits.length}`;
    if (!viewer.open) viewer.showModal();
  };
  const closeViewer = () => { if (viewer.open) viewer.close(); };
  viewer.addEventListener("close", () => {
    byId("viewer-stage").replaceChildren(); // it goes silent
    const at = viewed;
    viewed = null;
    document.querySelector(`.look[data-at="${at}"]`)?.focus();
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) return closeViewer(); // beside it
    // The address may be the same as now: then nothing else would close it.
    if (event.target.closest("a[href^='#']")) closeViewer();
  });
  const copy = async (words) => {
    const said = byId("viewer-said");
    try {
      await navigator.clipboard.writeText(words);
      said.textContent = "Copied.";
    } catch { // not every browser lets a page of another machine do it
      said.textContent = words;
      getSelection().selectAllChildren(said);
    }
  };
  byId("viewer-time").addEventListener("click", () => copy(byId("viewer-now").textContent));
  byId("viewer-path").addEventListener("click", () => copy((viewed < 0 ? queried : hits[viewed]).path));
  byId("viewer-close").addEventListener("click", closeViewer);
  byId("viewer-before").addEventListener("click", () => view(viewed - 1));
  byId("viewer-after").addEventListener("click", () => view(viewed + 1));
  viewer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.tagName === "VIDEO" || viewed < 0) return;
    if (hits[viewed + by]) view(viewed + by);
    event.preventDefault();
  });

  // Hands.
  byId("save").addEventListener("click", () => lists.save("found.csv", hits.map((clip) => ({
    file: clip.path,
    collection: clip.key,
    start: lists.timecode(clip.start_s),
    end: lists.timecode(clip.end_s),
    shot_start: clip.shot ? lists.timecode(clip.shot_start_s) : null,
    shot_end: clip.shot ? lists.timecode(clip.shot_end_s) : null,
    score: clip.score,
    sound_fits_picture: clip.agreement,
  }))));
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".look");
    if (button) view(Number(button.dataset.at));
  });
  byId("hits").addEventListener("keydown", (event) => {
    if (!event.target.matches(".look") || event.altKey || event.ctrlKey || event.metaKey) return;
    const looks = [...byId("hits").querySelectorAll(".look")];
    const at = looks.indexOf(event.target);
    const top = (i) => looks[i].getBoundingClientRect().top;
    const wide = Math.max(1, looks.findIndex((_, i) => top(i) > top(0) + 1));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - wide, ArrowDown: at + wide, Home: 0, End: looks.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    looks[to]?.focus();
  });
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same may be chosen again
    if (file) upload(file);
  });
  const dropped = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!dropped(event)) return;
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", (event) => {
    document.body.classList.remove("over");
    if (!dropped(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files || [];
    if (file) upload(file);
  });
  const find = () => { location.hash = byId("name").value ? link({ name: byId("name").value }) : link({}); };
  let typed = 0;
  byId("name").addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(find, 300);
  });
  byId("name").addEventListener("keydown", (event) => { if (event.key === "Enter") find(); });
  const set = (name, value) => {
    const now = state();
    now.delete(name);
    if (value !== null) now.append(name, value);
    location.hash = "#" + now;
  };
  byId("in").addEventListener("change", (event) => set("in", event.target.value === "*" ? null : event.target.value));
  byId("every").addEventListener("change", (event) => set("every", event.target.checked ? "1" : null));

  // Where one was on the page comes back with it.
  history.scrollRestoration = "manual";
  addEventListener("scroll", () => {
    clearTimeout(moved);
    moved = setTimeout(() => history.replaceState({ y: scrollY }, ""), 100);
  });
  addEventListener("popstate", () => route({ y: history.state?.y || 0, focus: document.activeElement !== byId("name") }));

  const learn = async () => {
    about = await source.about();
    byId("counts").textContent = `${count(about.clips, "second")} of ${count(about.files, "file")}`;
    byId("drop").hidden = !(source.upload && about.model);
    byId("no-model").hidden = !source.upload || about.model;
    const chosen = byId("in");
    chosen.replaceChildren(new Option("all", "*"), ...about.collections.map(({ name, key, clips }) => new Option(`${name} (${clips.toLocaleString("en")})`, key)));
    byId("in-label").hidden = about.collections.length < 2;
  };
  try {
    await learn();
  } catch (error) {
    byId("heading").textContent = "That did not work";
    return trouble(error.message);
  }
  route({ y: history.state?.y || 0 });
})();
