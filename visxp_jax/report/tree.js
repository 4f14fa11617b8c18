"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, css, words) => {
    const element = document.createElement(tag);
    if (css) element.className = css;
    if (words !== undefined) element.textContent = words;
    return element;
  };
  const { trees, clips, labels } = JSON.parse(byId("tree-data").textContent);
  const canvas = byId("tree-disk");
  const pen = canvas.getContext("2d");
  const n = clips.length;
  const filed = !labels.length; // without labels, files tell clips apart
  if (filed) {
    const number = new Map();
    for (const clip of clips) {
      if (!number.has(clip.video)) number.set(clip.video, labels.push(clip.name) - 1);
      clip.label = number.get(clip.video);
    }
  }
  const colour = (label, light) =>
    label < 0 ? `hsl(0 0% ${light}%)` : `hsl(${(360 * label) / labels.length} 65% ${light}%)`;

  // Isometries of the disk as z -> (a z + b) / (conj(b) z + conj(a)): [ar, ai, br, bi].
  const compose = (g, h) => [
    g[0] * h[0] - g[1] * h[1] + g[2] * h[2] + g[3] * h[3],
    g[0] * h[1] + g[1] * h[0] + g[3] * h[2] - g[2] * h[3],
    g[0] * h[2] - g[1] * h[3] + g[2] * h[0] + g[3] * h[1],
    g[0] * h[3] + g[1] * h[2] + g[3] * h[0] - g[2] * h[1],
  ];
  const inverse = (g) => [g[0], -g[1], -g[2], -g[3]];
  const scaled = (g) => { // errors of many products are taken out
    const s = Math.sqrt(g[0] * g[0] + g[1] * g[1] - g[2] * g[2] - g[3] * g[3]);
    return [g[0] / s, g[1] / s, g[2] / s, g[3] / s];
  };
  const divided = (x, y, u, v) => {
    const s = u * u + v * v;
    return [(x * u + y * v) / s, (y * u - x * v) / s];
  };
  const image = (g, z) => divided(
    g[0] * z[0] - g[1] * z[1] + g[2], g[0] * z[1] + g[1] * z[0] + g[3],
    g[2] * z[0] + g[3] * z[1] + g[0], g[2] * z[1] - g[3] * z[0] - g[1]);
  const centre = (g) => divided(g[2], g[3], g[0], -g[1]);
  const moved = (z) => { // takes 0 to z
    const s = 1 / Math.sqrt(1 - z[0] * z[0] - z[1] * z[1]);
    return [s, 0, z[0] * s, z[1] * s];
  };
  // From the frame of a node to that of a child: turned, then on by the spread. Where
  // three branches leave at 120 degrees and steps are of ln 3 or more, none ever cross.
  const step = (turn, far) => [
    Math.cosh(far / 2) * Math.cos(turn / 2), Math.cosh(far / 2) * Math.sin(turn / 2),
    Math.sinh(far / 2) * Math.cos(turn / 2), Math.sinh(far / 2) * Math.sin(turn / 2),
  ];

  // The tree in hand.
  let tree = null;
  const load = (at) => {
    const { name, merges, heights, faces } = trees[at];
    const nodes = 2 * n - 1;
    const parent = new Int32Array(nodes).fill(-1);
    const size = new Int32Array(nodes).fill(1);
    const apart = new Float64Array(nodes);
    const heard = new Int32Array(nodes); // clips of which is known how well they agree
    const counts = []; // of labels, [label, count] from the most frequent on
    const known = new Int32Array(nodes);
    for (let i = 0; i < n; i++) {
      const clip = clips[i];
      if (clip.apart !== null) { apart[i] = clip.apart; heard[i] = 1; }
      counts.push(clip.label < 0 ? new Map() : new Map([[clip.label, 1]]));
      known[i] = clip.label < 0 ? 0 : 1;
    }
    merges.forEach(([left, right], i) => {
      const node = n + i;
      parent[left] = parent[right] = node;
      size[node] = size[left] + size[right];
      apart[node] = apart[left] + apart[right];
      heard[node] = heard[left] + heard[right];
      known[node] = known[left] + known[right];
      const both = new Map(counts[left]);
      for (const [label, count] of counts[right]) both.set(label, (both.get(label) || 0) + count);
      counts.push(both);
    });
    const top = counts.map((map) => {
      let best = [-1, 0];
      for (const pair of map) if (pair[1] > best[1]) best = pair;
      return best;
    });
    tree = { name, merges, heights, faces, parent, size, apart, heard, counts, known, top, root: nodes - 1 };
  };
  const children = (node) => (node < n ? [] : tree.merges[node - n]);
  const purity = (node) => (tree.known[node] && !filed ? tree.top[node][1] / tree.known[node] : null);
  const disagreement = (node) => (tree.heard[node] ? tree.apart[node] / tree.heard[node] : null);
  const face = (node) => (node < n ? node : tree.faces[node - n]);
  const percent = (share) => Math.round(100 * share) + "%";
  const title = (node) => {
    const label = tree.top[node][0] < 0 ? "" : labels[tree.top[node][0]];
    if (node < n) return filed ? `${clips[node].name} at ${clips[node].at}` : label || clips[node].name;
    const more = tree.counts[node].size - 1;
    const kinds = more > 0 ? `${label} and ${more} more` : label;
    return `${tree.size[node].toLocaleString("en")} clips${label ? " · " + kinds : ""}`;
  };
  const leaves = (node) => {
    const found = [];
    const todo = [node];
    while (todo.length) {
      const at = todo.pop();
      if (at < n) found.push(at);
      else todo.push(...[...children(at)].reverse());
    }
    return found;
  };

  // The view: an isometry from the frame of the node that everything is drawn from.
  let focus = 0;
  let view = [1, 0, 0, 0];
  let selected = 0;
  let spread = 1.1;
  let seen = []; // [node, x, y, radius] as drawn last
  let hover = -1;
  // Where a node belongs is to its left, its halves are above and below on the right.
  const turnOf = (node, second) => (second ? 1 : -1) * (node === tree.root ? Math.PI / 2 : Math.PI / 3);
  const edge = (parent, child) => step(turnOf(parent, tree.merges[parent - n][1] === child), spread);

  const pictures = new Map();
  const picture = (clip) => {
    if (!clips[clip].frame) return null;
    if (!pictures.has(clip)) {
      const image = new Image();
      image.onload = draw;
      image.src = "data:image/jpeg;base64," + clips[clip].frame;
      pictures.set(clip, image);
    }
    const image = pictures.get(clip);
    return image.complete && image.naturalWidth ? image : null;
  };

  const FAR = 0.9975; // nothing beyond can be told apart
  const MOST = 2000; // nodes in sight, so that a frame takes no longer for any tree
  let waiting = false;
  const draw = () => {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(drawn);
    }
  };
  const drawn = () => {
    waiting = false;
    const css = getComputedStyle(document.documentElement);
    const [line, ink, accent, sheet] = ["--line", "--soft", "--accent", "--sheet"].map((name) => css.getPropertyValue(name));
    const box = canvas.getBoundingClientRect();
    const dense = window.devicePixelRatio || 1;
    const width = Math.round(box.width * dense);
    const height = Math.round(box.height * dense);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const R = Math.min(width, height) / 2 - 2 * dense;
    const X = (z) => width / 2 + R * z[0];
    const Y = (z) => height / 2 + R * z[1];
    pen.clearRect(0, 0, width, height);
    pen.beginPath();
    pen.arc(width / 2, height / 2, R, 0, 2 * Math.PI);
    pen.fillStyle = sheet;
    pen.fill();
    pen.strokeStyle = line;
    pen.lineWidth = dense;
    pen.stroke();
    seen = [];
    const path = new Set();
    for (let at = selected; at >= 0; at = tree.parent[at]) path.add(at);
    const todo = [[focus, view, -1]];
    for (let i = 0; i < todo.length && i < MOST; i++) { // fewest steps away first
      const [node, g, from] = todo[i];
      const z = centre(g);
      const near = 1 - z[0] * z[0] - z[1] * z[1];
      seen.push([node, X(z), Y(z), Math.max(2.2 * dense, R * near * (node < n ? 0.085 : 0.07)), from, g]);
      if (Math.hypot(z[0], z[1]) > FAR) continue;
      for (const child of children(node)) if (child !== from) todo.push([child, compose(g, edge(node, child)), node]);
      const parent = tree.parent[node];
      if (parent >= 0 && parent !== from) todo.push([parent, compose(g, inverse(edge(parent, node))), node]);
    }
    const at = new Map(seen.map((row) => [row[0], row]));
    for (const [node, x, y, , from, g] of seen) {
      if (from < 0) continue;
      const [, u, v, , , h] = at.get(from);
      // The geodesic's middle, by which a curve of second degree is as good as exact.
      const z = image(inverse(g), centre(h));
      const far = Math.hypot(z[0], z[1]);
      const half = Math.tanh(Math.atanh(Math.min(far, 0.999999)) / 2) / far;
      const middle = image(g, [z[0] * half, z[1] * half]);
      const own = path.has(node) && path.has(from);
      pen.beginPath();
      pen.moveTo(x, y);
      pen.quadraticCurveTo(2 * X(middle) - (x + u) / 2, 2 * Y(middle) - (y + v) / 2, u, v);
      pen.strokeStyle = own ? accent : ink;
      pen.globalAlpha = own ? 1 : 0.45;
      pen.lineWidth = (own ? 2.5 : 1.2) * dense;
      pen.stroke();
      pen.globalAlpha = 1;
    }
    for (const [node, x, y, radius] of [...seen].reverse()) {
      const share = purity(node);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fillStyle = colour(tree.top[node][0], 50);
      pen.globalAlpha = share === null ? 0.5 : 0.25 + 0.75 * share;
      pen.fill();
      pen.globalAlpha = 1;
      const image = radius > 9 * dense && picture(face(node));
      if (image) {
        pen.save();
        pen.beginPath();
        pen.arc(x, y, radius - 2.5 * dense, 0, 2 * Math.PI);
        pen.clip();
        pen.drawImage(image, x - radius, y - radius, 2 * radius, 2 * radius);
        pen.restore();
      }
      if (node === selected || node === hover) {
        pen.beginPath();
        pen.arc(x, y, radius + 3 * dense, 0, 2 * Math.PI);
        pen.strokeStyle = accent;
        pen.lineWidth = (node === selected ? 3 : 1.5) * dense;
        pen.stroke();
      }
      if (node === hover || (node >= n && radius > 24 * dense)) {
        pen.font = `${12 * dense}px system-ui, sans-serif`;
        pen.textAlign = "center";
        pen.lineWidth = 4 * dense;
        pen.strokeStyle = sheet;
        pen.fillStyle = css.getPropertyValue("--ink");
        const words = title(node).slice(0, 40);
        pen.strokeText(words, x, y + radius + 15 * dense);
        pen.fillText(words, x, y + radius + 15 * dense);
      }
    }
  };

  // The nearest node to the middle carries the view: numbers stay small.
  const settle = () => {
    let best = null;
    let least = Infinity;
    for (const row of seen) {
      const z = centre(row[5]);
      const far = z[0] * z[0] + z[1] * z[1];
      if (far < least) [best, least] = [row, far];
    }
    if (best) [focus, view] = [best[0], scaled(best[5])];
    return least;
  };
  let moving = 0;
  const bring = (node) => { // to the middle, along the geodesic
    cancelAnimationFrame(moving);
    const row = seen.find((row) => row[0] === node);
    focus = node;
    if (!row || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      view = [1, 0, 0, 0];
      return draw();
    }
    const z = centre(row[5]);
    const far = Math.hypot(z[0], z[1]);
    const turned = compose(inverse(moved(z)), row[5]);
    const angle = Math.atan2(turned[1], turned[0]) % Math.PI; // half of it; a full turn is none
    const short = angle > Math.PI / 2 ? angle - Math.PI : angle < -Math.PI / 2 ? angle + Math.PI : angle;
    const begun = performance.now();
    const lasts = 220 + 90 * Math.atanh(Math.min(far, 0.9999));
    const frame = (now) => {
      const t = Math.min(1, Math.max(0, (now - begun) / lasts));
      const left = 1 - t * t * (3 - 2 * t);
      const rest = far && Math.tanh(Math.atanh(Math.min(far, 0.99999)) * left) / far;
      view = compose(moved([z[0] * rest, z[1] * rest]), [Math.cos(short * left), Math.sin(short * left), 0, 0]);
      drawn();
      if (t < 1) moving = requestAnimationFrame(frame);
    };
    frame(begun);
  };

  // What is said of the node in hand.
  const SHOWN = 24;
  const spaced = (all) =>
    all.filter((_, i) => i === 0 || Math.floor((i * SHOWN) / all.length) !== Math.floor(((i - 1) * SHOWN) / all.length));
  const some = (node) => { // spread over it, those with a sound first
    const all = leaves(node);
    const heard = all.filter((clip) => clips[clip].sound !== null);
    return [...new Set([face(node), ...spaced(heard), ...spaced(all)])].slice(0, SHOWN);
  };
  const card = (index, top) => {
    const clip = clips[index];
    const box = make("div", "clip");
    const kind = clip.sound !== null ? "button" : clip.link ? "a" : "span";
    const frame = make(kind, kind === "span" ? "silent" : "");
    if (kind === "a") frame.href = clip.link;
    if (kind === "button") {
      frame.type = "button";
      frame.dataset.sound = clip.sound;
    }
    const label = clip.label < 0 ? "no label" : labels[clip.label];
    frame.title = `${filed ? "" : `${label}, `}${clip.video} at ${clip.at}`;
    if (clip.frame) {
      const image = make("img");
      image.src = "data:image/jpeg;base64," + clip.frame;
      image.alt = frame.title;
      frame.append(image);
    } else frame.append(make("span", "noframe", "no picture"));
    if (clip.sound !== null) frame.append(make("i", "run"));
    const odd = clip.label >= 0 && clip.label !== top ? " odd" : "";
    const where = make("span", "where", clip.name);
    where.title = clip.video;
    const told = make("span", clip.label < 0 ? "label unlabelled" : "label" + odd, label);
    box.append(frame, ...(filed ? [] : [told]), where, make("span", "time", clip.at));
    return box;
  };
  const button = (words, node, current) => {
    const element = make("button", "", words);
    element.type = "button";
    element.dataset.node = node;
    if (current) element.setAttribute("aria-current", "true");
    return element;
  };
  const describe = () => {
    const node = selected;
    const trail = [];
    for (let at = node; at >= 0; at = tree.parent[at]) trail.unshift(at);
    const shown = trail.length > 8 ? [...trail.slice(0, 2), -1, ...trail.slice(-5)] : trail;
    byId("tree-path").replaceChildren(...shown.map((at) => {
      const item = make("li", "", at < 0 ? `${trail.length - 7} more` : undefined);
      if (at >= 0) item.append(button(at === tree.root ? "all clips" : title(at), at, at === node));
      return item;
    }));
    const facts = [];
    if (node >= n) facts.push(`mean distance of its halves ${tree.heights[node - n].toFixed(3)}`);
    if (tree.size[node] > 1 && purity(node) !== null) facts.push(`purity ${percent(purity(node))}`);
    if (disagreement(node) !== null) facts.push(`sight and sound disagree ${percent(disagreement(node))}`);
    const shares = make("ul", "shares");
    const sorted = [...tree.counts[node]].sort((a, b) => b[1] - a[1]);
    for (const [label, count] of sorted.slice(0, 6)) {
      const item = make("li", "", `${labels[label]}: ${count}`);
      const bar = make("i");
      bar.style.width = percent(count / tree.known[node]).replace(" ", "");
      bar.style.background = colour(label, 50);
      item.prepend(bar);
      shares.append(item);
    }
    if (sorted.length > 6) shares.append(make("li", "", `and ${sorted.length - 6} more`));
    const steps = make("div", "steps");
    if (tree.parent[node] >= 0) steps.append(button("← " + title(tree.parent[node]), tree.parent[node]));
    children(node).forEach((child, i) => steps.append(button(["↑ ", "↓ "][i] + title(child), child)));
    const strip = make("div", "strip");
    const members = some(node);
    strip.append(...members.map((clip) => card(clip, tree.top[node][0])));
    const rest = tree.size[node] - members.length;
    byId("tree-node").replaceChildren(
      make("h3", "", node === tree.root ? `All ${n.toLocaleString("en")} clips` : title(node)),
      make("p", "", node < n ? `${clips[node].video} at ${clips[node].at}${facts.length ? " · " + facts.join(" · ") : ""}` : facts.join(" · ")),
      ...(node < n || !sorted.length ? [] : [shares]), steps, strip,
      ...(rest > 0 ? [make("p", "", `and ${rest.toLocaleString("en")} more`)] : []));
    list();
  };

  // Nodes in order, and what is found.
  const LISTED = 60;
  const orders = {
    mixed: [purity, 1], pure: [purity, -1], apart: [disagreement, -1], size: [(node) => tree.size[node], -1],
  };
  const list = () => {
    const words = byId("tree-find").value.toLowerCase().split(/\s+/).filter(Boolean);
    let found;
    if (words.length) {
      found = clips.map((_, i) => i).filter((i) => {
        const text = `${clips[i].video} ${clips[i].label < 0 ? "" : labels[clips[i].label]}`.toLowerCase();
        return words.every((word) => text.includes(word));
      });
    } else {
      const [value, sign] = orders[byId("tree-sort").value];
      const least = Math.min(4, n);
      found = [];
      for (let node = n; node < 2 * n - 1; node++) if (tree.size[node] >= least && value(node) !== null) found.push(node);
      found.sort((a, b) => sign * (value(a) - value(b)) || tree.size[b] - tree.size[a] || a - b);
    }
    byId("tree-count").textContent = `${found.length.toLocaleString("en")} ${words.length ? "clips" : "nodes"}`;
    byId("tree-rows").replaceChildren(...found.slice(0, LISTED).map((node) => {
      const facts = [];
      if (node < n && !filed) facts.push(`${clips[node].name} at ${clips[node].at}`);
      else if (purity(node) !== null) facts.push(percent(purity(node)));
      if (disagreement(node) !== null) facts.push(`disagree ${percent(disagreement(node))}`);
      const item = make("li");
      item.append(button([title(node), ...facts].join(" · "), node, node === selected));
      return item;
    }));
  };

  const link = () => `#node=${encodeURIComponent(tree.name)}.${selected}`;
  const select = (node, { said = true } = {}) => {
    selected = node;
    bring(node);
    describe();
    if (said && location.hash !== link()) history.pushState(null, "", link());
  };
  const follow = () => {
    if (!location.hash) { // where the page began
      byId("tree-name").value = trees[0].name;
      load(0);
      seen = [];
      select(tree.root, { said: false });
    }
    const found = /^#node=([^.]*)\.(\d+)$/.exec(location.hash);
    if (!found) return false;
    let name = "";
    try { name = decodeURIComponent(found[1]); } catch { return false; }
    const at = trees.findIndex((tree) => tree.name === name);
    const node = Number(found[2]);
    if (at < 0 || node > 2 * n - 2) return false;
    byId("tree-name").value = name;
    load(at);
    seen = [];
    select(node, { said: false });
    byId("tree").scrollIntoView({ block: "nearest" });
    return true;
  };

  // Hands.
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const R = Math.min(box.width, box.height) / 2 - 2;
    return [(event.clientX - box.left - box.width / 2) / R, (event.clientY - box.top - box.height / 2) / R];
  };
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const dense = canvas.width / box.width;
    const [x, y] = [(event.clientX - box.left) * dense, (event.clientY - box.top) * dense];
    let best = -1;
    let least = 10 * dense;
    for (const [node, u, v, radius] of seen) {
      const far = Math.hypot(x - u, y - v) - radius;
      if (far < least) [best, least] = [node, far];
    }
    return best;
  };
  const within = (z) => {
    const far = Math.hypot(z[0], z[1]);
    return far > 0.95 ? [(z[0] * 0.95) / far, (z[1] * 0.95) / far] : z;
  };
  const shift = (from, to) => {
    cancelAnimationFrame(moving);
    const before = [focus, view];
    view = scaled(compose(compose(moved(within(to)), inverse(moved(within(from)))), view));
    drawn();
    if (settle() < 0.97) return;
    [focus, view] = before; // no further than where some node is still in sight
    drawn();
  };
  // What is at a place comes nearer by a share of its way, or goes.
  const zoom = (from, to, share) => {
    const by = 1 - Math.max(-0.25, Math.min(0.25, share));
    shift(from, [to[0] * by, to[1] * by]);
  };
  const pinch = (from, to, other) => { // what is between two fingers
    const middle = (z) => [(z[0] + other[0]) / 2, (z[1] + other[1]) / 2];
    const far = (z) => Math.hypot(z[0] - other[0], z[1] - other[1]) + 1e-6;
    zoom(middle(from), middle(to), 1 - far(from) / far(to));
  };
  const held = new Map(); // pointers that are down: where they were
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, place(event));
    dragged = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held.has(event.pointerId)) {
      const from = held.get(event.pointerId);
      const to = place(event);
      if (!dragged && Math.hypot(to[0] - from[0], to[1] - from[1]) < 0.012) return;
      dragged = true;
      held.set(event.pointerId, to);
      const other = [...held].find(([id]) => id !== event.pointerId);
      return other ? pinch(from, to, other[1]) : shift(from, to);
    }
    const node = under(event);
    if (node !== hover) {
      hover = node;
      draw();
    }
  });
  const release = (event) => {
    if (!held.delete(event.pointerId) || dragged || event.type !== "pointerup") return;
    const node = under(event);
    if (node >= 0) select(node);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { hover = -1; draw(); });
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) return; // the browser's own zoom
    event.preventDefault();
    zoom(within(place(event)), within(place(event)), -event.deltaY / 600);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const [above, below] = children(selected);
    const parent = tree.parent[selected];
    const other = parent < 0 ? undefined : children(parent).find((node) => node !== selected);
    const to = { ArrowLeft: parent, ArrowUp: above, ArrowDown: below, ArrowRight: other, Home: tree.root }[event.key];
    if (event.key === "Enter") byId("tree-node").querySelector("[data-sound], .clip a")?.click();
    else if (event.key === " ") byId("tree-node").querySelector("[data-sound]")?.click();
    else if (event.key === "+" || event.key === "-") {
      byId("tree-spread").valueAsNumber += event.key === "+" ? 0.1 : -0.1;
      byId("tree-spread").dispatchEvent(new Event("input"));
    } else if (to === undefined || to < 0) return;
    else select(to);
    event.preventDefault();
  });
  byId("tree").addEventListener("click", (event) => {
    const chosen = event.target.closest("[data-node]");
    if (!chosen) return;
    const part = chosen.closest("[id]"); // it is made anew: the hand stays there
    select(Number(chosen.dataset.node));
    (part.querySelector(`[data-node="${chosen.dataset.node}"]`) || canvas).focus({ preventScroll: true });
  });
  byId("tree-spread").addEventListener("input", (event) => {
    spread = event.target.valueAsNumber;
    draw();
  });
  byId("tree-sort").addEventListener("change", () => { byId("tree-find").value = ""; list(); });
  byId("tree-find").addEventListener("input", list);
  byId("tree-name").append(...trees.map(({ name }) => new Option(name, name)));
  byId("tree-name").addEventListener("change", (event) => {
    const leaf = selected < n ? selected : face(selected); // one that both trees have
    const whole = selected === tree.root;
    load(trees.findIndex(({ name }) => name === event.target.value));
    seen = [];
    select(whole ? tree.root : leaf);
  });
  addEventListener("popstate", follow);
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  load(0);
  const without = [];
  if (filed) without.push("mixed", "pure");
  if (clips.every((clip) => clip.apart === null)) without.push("apart");
  for (const value of without) byId("tree-sort").querySelector(`[value=${value}]`).remove();
  if (!follow() && location.hash) select(tree.root, { said: false });
})();
