"use strict";
(() => {
const $ = (id) => document.getElementById(id), SVG = "http://www.w3.org/2000/svg", DASH = "\u2013", ROW = 30, WHOLE = 20, AS_IT_IS = "the scores as they are";
const set = (node, name, value) => { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };
const say = (node, text) => { // the same text node gets other characters: it need not be made anew
  const one = node.firstChild;
  if (one && one === node.lastChild && one.nodeType === Node.TEXT_NODE) { if (one.data !== text) one.data = text; }
  else if (node.textContent !== text) node.textContent = text;
};
function make(tag, attributes = {}, ...children) { // texts become text nodes, whatever they hold
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function draw(parent, tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

// ---------------------------------------------------------------- the data: JSON, and arrays as differences
async function unpacked() {
  const text = atob($("data").textContent.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const raw = await new Response(stream).arrayBuffer(), size = new DataView(raw).getUint32(0, true);
  return revived(JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, size))), raw, 4 + size);
}
function revived(value, raw, start) {
  if (value === null || typeof value !== "object") return value;
  if (typeof value.at === "number" && Array.isArray(value.shape)) return array(value, raw, start + value.at);
  for (const key of Object.keys(value)) value[key] = revived(value[key], raw, start);
  return value;
}
function array({ shape, type }, raw, at) {
  const size = shape.reduce((a, b) => a * b, 1), step = shape[0] ? size / shape[0] : 1;
  if (type === "f8") return new Float64Array(raw, at, size);
  const found = type === "i4" ? new Int32Array(raw, at, size) : Float64Array.from(new BigInt64Array(raw, at, size), Number);
  for (let i = step; i < size; i++) found[i] += found[i - step];
  return found;
}

// ---------------------------------------------------------------- what counts are worth: the order of Python's sums
const OVER = { f1: (h) => 2 * h, specificity: (h, p, s, n) => n - s - p + h };
const UNDER = { recall: (h, p, s) => s, precision: (h, p) => p, iou: (h, p, s) => s + p - h, f1: (h, p, s) => s + p, specificity: (h, p, s, n) => n - s };
const over = (ratio, h, p, s, n) => (OVER[ratio] ? OVER[ratio](h, p, s, n) : h), under = (ratio, h, p, s, n) => UNDER[ratio](h, p, s, n);
const units = (counts) => (counts.n ??= counts.support.reduce((a, b) => a + b, 0));
function value(t, m, counts, g) {
  const k = t.n_classes, { hits, predicted, support } = counts, o = g * k;
  if (m.ratio === "acc") {
    let right = 0;
    for (let c = 0; c < k; c++) right += hits[o + c];
    return units(counts) ? right / units(counts) : NaN;
  }
  if (m.of !== undefined) return t.out.has(m.of) ? NaN : ratio(m.ratio, counts, o, m.of);
  if (!m.ratio) return counts === t.counts && m.values ? m.values[g] : NaN;
  const among = m.among ?? -1, predictions = t.absent === "reference" && m.ratio !== "recall", all = t.absent === "zero";
  let total = 0, n = 0;
  for (let c = 0; c < k; c++) {
    if ((among >= 0 && t.shots.of[c] !== among) || t.out.has(c)) continue;
    const h = hits[o + c], p = predicted[o + c], s = support[c];
    if (!(all || s > 0 || (predictions && p > 0))) continue;
    const d = under(m.ratio, h, p, s, units(counts));
    n++;
    if (d > 0) total += over(m.ratio, h, p, s, units(counts)) / d;
  }
  return n ? total / n : NaN;
}
function ratio(name, counts, o, c) {
  const { hits, predicted, support } = counts, its = [hits[o + c], predicted[o + c], support[c], units(counts)], d = under(name, ...its);
  return d > 0 ? over(name, ...its) / d : NaN;
}
function series(t, m) {
  if (!m.series) m.series = m.values || Float64Array.from(t.lams, (_, g) => value(t, m, t.counts, g));
  return m.series;
}
const known = (x) => (x === null || x === undefined ? NaN : x);
const number = (x, m, sign = false) => {
  if (Number.isNaN(x)) return DASH;
  const text = m.percent ? (100 * x).toFixed(2) : x.toFixed(4);
  return sign && x >= 0 ? `+${text}` : text;
};
const cell = (v, text, more = {}) => ({ v: Number.isNaN(v) ? "" : v, text, ...more });
const of = (m, x, sign) => cell(x, number(x, m, sign), sign ? { tone: tone(m, x) } : {});
const tone = (m, x) => (x === 0 || Number.isNaN(x) ? "" : x > 0 === (m.higher ?? true) ? "up" : "down");
const short = () => (t.against === AS_IT_IS ? "as it is" : t.against);
const span = (m, ends) => (ends ? cell(ends.join(" "), ends.map((x) => number(x, m, true)).join(" to "), { ends }) : cell("", DASH, { ends: ["", ""] }));
const PERCENT = { percent: true, higher: true }, whole = (n) => cell(n, n.toLocaleString("en"));
const lambda = (x) => (x === null || Number.isNaN(x) ? DASH : String(Number(x.toPrecision(12))));
const word = () => (t.shares ? "factor" : "lambda"); // with shares of modalities, the slider is a factor of these
const each = (x, between = ", ") => t.shares.map(([name, share]) => `${name} ${lambda(Number((x * share).toPrecision(6)))}`).join(between);
const spoken = (x) => (t.shares ? `factor ${lambda(x)} (lambda ${each(x)})` : `lambda ${lambda(x)}`);
const ring = () => (t.given ? `the ${word()} of this page, ${lambda(t.lambda)}, ${t.given}` : `the chosen ${word()}, ${lambda(t.lambda)}`);
const listed = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0]);

// ---------------------------------------------------------------- tables: rows are filled anew, never made anew
function put(row, cells) {
  while (row.children.length < cells.length)
    row.append(row.children.length ? make("td") : make("th", { scope: "row" }));
  cells.forEach((one, j) => {
    const box = row.children[j], plain = typeof one === "string";
    if (plain) { say(box, one); set(box, "title", one); if (j) set(box, "class", "text"); return; }
    let data = box.querySelector("data");
    if (!data) {
      if (one.bar !== undefined) box.append(make("span", { class: "bar", "aria-hidden": "true" }, make("i")));
      box.append((data = make("data")));
    }
    if (one.bar !== undefined) box.querySelector("i").style.transform = `scaleX(${one.bar || 0})`; // painted anew, not laid out
    set(data, "value", one.v);
    say(data, one.text);
    if (one.tone !== undefined) set(data, "class", one.tone);
  });
}
const raw = (one) => (typeof one === "string" ? [/^[=+@\t\r-]/.test(one) ? `'${one}` : one] : one.ends || [one.v]); // no text is a formula
const flat = (heads, cells) => heads.flatMap((text, j) => (cells[j]?.ends ? [`${text}, from`, `${text}, to`] : [text.replace(/, %$/, "")]));
const quoted = (x) => (/[",\r\n]/.test(String(x)) ? `"${String(x).replaceAll('"', '""')}"` : String(x));
async function copy(name, rows) {
  const [heads, ...cells] = rows, lines = [flat(heads, cells[0] || []), ...cells.map((row) => row.flatMap(raw))];
  const text = lines.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  try { await navigator.clipboard.writeText(text); } catch {
    const area = make("textarea", { "aria-label": "CSV" });
    area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
  }
  say($("status"), `${name}: ${rows.length - 1} rows copied as CSV`);
}
const button = (text, act) => { const made = make("button", { type: "button" }, text); made.onclick = act; return made; };
function table(parent, name, head, rows) { // rows: what the rows are now; returns what shows them again
  const tools = make("div", { class: "tools" }), body = make("tbody"), heads = make("tr");
  for (const text of head) heads.append(text.length > 40 ? make("th", { scope: "col", title: text }, make("span", { class: "long" }, text)) : make("th", { scope: "col" }, text));
  const made = make("table", {}, make("caption", { class: "away" }, name), make("thead", {}, heads), body);
  const box = make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": name }, made);
  const again = () => {
    const now = rows();
    while (body.children.length > now.length) body.lastChild.remove();
    now.forEach((cells, i) => put(body.children[i] || body.appendChild(make("tr")), cells));
    set(box, "class", now.length > WHOLE ? "scroll tall" : "scroll");
    return made;
  };
  tools.append(button("copy as CSV", () => copy(name, [[...heads.children].map((one) => one.textContent), ...rows()])));
  parent.append(box, tools);
  again();
  [...heads.children].forEach((one, j) => { if (j && typeof rows()[0]?.[j] === "string") set(one, "class", "text"); });
  return Object.assign(again, { heads });
}

// ---------------------------------------------------------------- one run
let page, t, at = 0, tab = 0, moves = [];
const view = { m: "", x: "", y: "", s: "class", d: 1, q: "" };
const metric = (name) => t.metrics.find((one) => one.name === name);
const about = (name) => metric(name) || t.at?.titles[name] || { title: name };
const named = (c) => (t.class_names ? t.class_names[c] : String(c));
function choice(parent, label, key, change) {
  const box = make("select"), usable = t.metrics.filter((m) => series(t, m).some(Number.isFinite));
  for (const m of usable) box.append(make("option", { value: m.name }, m.title));
  if (!usable.some((m) => m.name === view[key])) view[key] = (usable[0] || t.metrics[0]).name;
  box.value = view[key];
  box.onchange = () => { view[key] = box.value; change(); keep(); };
  parent.append(make("label", {}, `${label} `, box));
}
function metrics(parent) {
  const shown = t.metrics.filter((m) => m.shown);
  const rows = () => shown.map((m) => {
    const now = value(t, m, t.counts, at), base = known(m.base), ends = [known(m.low?.[at]), known(m.high?.[at])];
    const sure = span(m, Number.isNaN(ends[0]) ? null : ends);
    return [m.title, ...(t.against ? [of(m, base)] : []), of(m, now), ...(t.against ? [of(m, now - base, true), sure] : [])];
  });
  const head = t.against ? ["metric", short(), "", "change", "95 % interval of it"] : ["metric", "value"];
  const again = table(parent, "Metrics", head, rows);
  const title = again.heads.children[2];
  moves.push(() => { again(); if (t.against) say(title, t.average ? t.name : spoken(t.lams[at])); });
  const percents = shown.some((m) => m.percent) ? "In percent" + (shown.every((m) => m.percent) ? "" : ", but for " +
    shown.filter((m) => !m.percent).map((m) => m.title).join(", ")) + ". " : "";
  const from = !shown.some((m) => m.low) ? "" : `Intervals: units are compared in pairs, and each ${t.clusters} is independent` +
    (t.kept && t.kept < t.of ? `; they come from ${t.kept.toLocaleString("en")} of ${t.of.toLocaleString("en")} units` : "") +
    (t.tuned ? "; nothing is taken off for the choice of lambda on this data, as the cross-fitted gains do (Where this is from). " :
      t.searched ? `; at ${spoken(t.searched.lambda)}, which the search on this data takes, nothing is taken off for that choice, as its cross-fitted gains do (Where this is from). ` : ". ");
  const where = t.at?.mcnemar ? `at ${spoken(t.at.lambda)} alone, below` : "of a single lambda, which needs a read of the data of its own: unoic page FILES -o FILE has it";
  const alone = t.alone.length ? `${listed(t.alone)}: ${where}. ` : "";
  parent.append(make("p", { class: "key" }, alone + percents + from + `Means over classes: ${t.absent_rule}.`));
}
function ticks(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  let found = [];
  for (const size of [10, 5, 2, 1, 0.5, 0.2]) { // the largest round step that is not too small, and gives three
    const step = size * power;
    if (found.length > 2 && step < rough) break;
    found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  }
  return found;
}
function frame(box, xs, ys, labels) { // axes; returns scales
  const w = Math.max(box.clientWidth, 260), h = 270, left = 58, right = w - 14, top = 14, bottom = h - 40;
  box.replaceChildren();
  set(box, "viewBox", `0 0 ${w} ${h}`); set(box, "height", h);
  const scale = (ends, a, b) => {
    let [low, high] = ends;
    if (!(high > low)) { low -= 0.5; high += 0.5; }
    return Object.assign((x) => a + ((x - low) / (high - low)) * (b - a), { low, high, back: (p) => low + ((p - a) / (b - a)) * (high - low) });
  };
  const x = scale(xs, left, right), y = scale(ys, bottom, top), under = draw(box, "g");
  const digits = (values) => Math.max(0, Math.min(6, -Math.floor(Math.log10(values[1] - values[0] || 1) + 1e-9)));
  for (const [s, across] of [[x, true], [y, false]]) {
    const m = labels[across ? 0 : 1], factor = m.percent ? 100 : 1, values = ticks(s.low * factor, s.high * factor), n = digits(values);
    for (const v of values) {
      const p = s(v / factor);
      draw(box, "line", across ? { class: "axis", x1: p, x2: p, y1: bottom, y2: bottom + 4 } : { class: "axis", x1: left, x2: right, y1: p, y2: p });
      draw(box, "text", across ? { x: p, y: bottom + 18, "text-anchor": "middle" } : { x: left - 6, y: p + 4, "text-anchor": "end" }, v.toFixed(n));
    }
  }
  const unit = (m) => m.title + (m.percent ? " (%)" : "");
  draw(box, "text", { x: (left + right) / 2, y: h - 6, "text-anchor": "middle" }, unit(labels[0]));
  draw(box, "text", { x: 14, y: (top + bottom) / 2, transform: `rotate(-90 14 ${(top + bottom) / 2})`, "text-anchor": "middle" }, unit(labels[1]));
  return { x, y, left, right, top, bottom, under };
}
function ends(...lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) for (const v of list) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.05;
  return low <= high ? [low - room, high + room] : [0, 1];
}
function path(xs, ys, x, y) {
  let text = "", pen = "M";
  for (let g = 0; g < xs.length; g++) {
    if (Number.isFinite(xs[g]) && Number.isFinite(ys[g])) { text += `${pen}${x(xs[g]).toFixed(2)} ${y(ys[g]).toFixed(2)}`; pen = "L"; } else pen = "M";
  }
  return text;
}
function runs(mask) { // first and last index of each run of ones
  const found = [];
  mask.forEach((on, g) => { if (on) { if (g && mask[g - 1]) found.at(-1)[1] = g; else found.push([g, g]); } });
  return found;
}
function pointed(box, found) { // the pointer moves lambda
  box.onpointerdown = (event) => { box.setPointerCapture(event.pointerId); go(found(event)); };
  box.onpointermove = (event) => { if (box.hasPointerCapture(event.pointerId)) go(found(event)); };
}
function spot(box, event) {
  const shape = box.getBoundingClientRect(), w = box.viewBox.baseVal.width, h = box.viewBox.baseVal.height;
  return [((event.clientX - shape.left) / shape.width) * w, ((event.clientY - shape.top) / shape.height) * h];
}
const nearest = (lam) => { let best = 0; t.lams.forEach((v, g) => { if (Math.abs(v - lam) < Math.abs(t.lams[best] - lam)) best = g; }); return best; };
function place(node, xy, x, y) {
  const there = xy.every(Number.isFinite);
  set(node, "visibility", there ? "visible" : "hidden");
  if (there) { set(node, "cx", x(xy[0])); set(node, "cy", y(xy[1])); }
}
function curve(parent) {
  const tools = make("div", { class: "tools" }), key = make("p", { class: "key" });
  const box = document.createElementNS(SVG, "svg"), half = (g, to) => (t.lams[g] + t.lams[Math.min(Math.max(g + to, 0), t.lams.length - 1)]) / 2;
  let hair, dot, s, m;
  const move = () => {
    set(hair, "x1", s.x(t.lams[at])); set(hair, "x2", s.x(t.lams[at]));
    place(dot, [t.lams[at], series(t, m)[at]], s.x, s.y);
    set(box, "aria-label", `${m.title} along ${t.shares ? "the factor of lambda" : "lambda"}; ${number(series(t, m)[at], m)} at ${word()} ${lambda(t.lams[at])}`);
  };
  const again = () => {
    m = metric(view.m);
    const values = series(t, m), base = known(m.base), lams = t.lams, bounds = t.constraints.filter((c) => c.metric === m.name);
    s = frame(box, [lams[0], lams.at(-1)], ends(values, [base]), [{ title: t.shares ? `factor of lambda ${each(1)}` : "lambda" }, m]);
    const strip = (a, b, name) => draw(s.under, "rect", { class: name, x: s.x(a), width: Math.max(s.x(b) - s.x(a), 1), y: s.top, height: s.bottom - s.top });
    if (t.interval) strip(lams[t.interval[0]], lams[t.interval[1]], "band");
    if (t.ruled_out) for (const [a, b] of runs(t.ruled_out)) strip(half(a, -1), half(b, 1), "out");
    if (Number.isFinite(base) && t.against) draw(box, "line", { class: "was", x1: s.left, x2: s.right, y1: s.y(base), y2: s.y(base) });
    for (const c of bounds) if (c.bound >= s.y.low && c.bound <= s.y.high) draw(box, "line", { class: "bound", x1: s.left, x2: s.right, y1: s.y(c.bound), y2: s.y(c.bound) });
    if (t.anchor !== null) draw(box, "line", { class: "mark", x1: s.x(lams[t.anchor]), x2: s.x(lams[t.anchor]), y1: s.top, y2: s.bottom });
    draw(box, "path", { class: "line", d: path(lams, values, s.x, s.y) });
    hair = draw(box, "line", { class: "hair", y1: s.top, y2: s.bottom });
    place(draw(box, "circle", { class: "chosen", r: 6 }), [lams[t.chosen], values[t.chosen]], s.x, s.y);
    dot = draw(box, "circle", { class: "dot", r: 4 });
    say(key, `Circle: ${ring()}. ` + (t.against ? `Dashed across: ${t.against}. ` : "") +
      (t.interval ? `Green: from the first to the last that is as good as the best ${t.constraints.length ? "that is allowed " : ""}(${lambda(lams[t.best])}) within one standard error of ${metric(t.goal).title}. ` : "") +
      (t.anchor !== null ? `Dashed upright: what the probabilities say (${lambda(lams[t.anchor])}). ` : "") +
      (t.ruled_out?.some(Boolean) ? `Red: where ${t.constraints.map((c) => c.text).join(" and ")} does not hold. ` : "") +
      `Click, or drag, to move ${t.shares ? "it" : "lambda"}.`);
    move();
  };
  choice(tools, "metric", "m", again);
  const rows = () => Array.from(t.lams, (lam, g) => [cell(lam, ""), ...t.metrics.map((one) => cell(series(t, one)[g], ""))]);
  tools.append(button("copy as CSV", () => copy("Along lambda", [[word(), ...t.metrics.map((one) => one.name)], ...rows()])));
  set(box, "role", "img");
  parent.append(tools, box, key);
  again();
  pointed(box, (event) => nearest(s.x.back(spot(box, event)[0])));
  moves.push(move);
  return again;
}
function plane(parent) {
  const tools = make("div", { class: "tools" }), box = document.createElementNS(SVG, "svg"), key = make("p", { class: "key" });
  let dot, s, x, y;
  const move = () => {
    place(dot, [series(t, x)[at], series(t, y)[at]], s.x, s.y);
    set(box, "aria-label", `${y.title} against ${x.title}; ${number(series(t, y)[at], y)} and ${number(series(t, x)[at], x)} at ${word()} ${lambda(t.lams[at])}`);
  };
  const again = () => {
    x = metric(view.x); y = metric(view.y);
    const [xs, ys] = [series(t, x), series(t, y)], bases = [known(x.base), known(y.base)];
    s = frame(box, ends(xs, [bases[0]]), ends(ys, [bases[1]]), [x, y]);
    for (const c of t.constraints) {
      const inside = (to) => c.bound >= to.low && c.bound <= to.high;
      if (c.metric === x.name && inside(s.x)) draw(box, "line", { class: "bound", x1: s.x(c.bound), x2: s.x(c.bound), y1: s.top, y2: s.bottom });
      if (c.metric === y.name && inside(s.y)) draw(box, "line", { class: "bound", x1: s.left, x2: s.right, y1: s.y(c.bound), y2: s.y(c.bound) });
    }
    draw(box, "path", { class: "line", d: path(xs, ys, s.x, s.y) });
    if (t.against && bases.every(Number.isFinite)) draw(box, "rect", { class: "chosen", x: s.x(bases[0]) - 5, y: s.y(bases[1]) - 5, width: 10, height: 10 });
    place(draw(box, "circle", { class: "chosen", r: 6 }), [xs[t.chosen], ys[t.chosen]], s.x, s.y);
    dot = draw(box, "circle", { class: "dot", r: 4 });
    say(key, `Circle: ${ring()}. ` + (t.against ? `Square: ${t.against}. ` : "") +
      (t.constraints.length ? `Orange: bound of ${t.constraints.map((c) => c.text).join(" and ")}. ` : "") + `Click, or drag, to move ${t.shares ? "it" : "lambda"}.`);
    move();
  };
  choice(tools, "right", "x", again);
  choice(tools, "up", "y", again);
  set(box, "role", "img");
  parent.append(tools, box, key);
  again();
  pointed(box, (event) => {
    const [px, py] = spot(box, event), far = (g) => (s.x(series(t, x)[g]) - px) ** 2 + (s.y(series(t, y)[g]) - py) ** 2;
    let best = at;
    t.lams.forEach((_, g) => { if (far(g) < far(best)) best = g; });
    return best;
  });
  moves.push(move);
  return again;
}
function classes(parent) {
  const k = t.n_classes, b = t.base, c = t.counts, shift = (name) => (i) => (name !== "recall" && t.out.has(i) ? NaN : ratio(name, c, at * k, i) - ratio(name, b, 0, i));
  const own = (name) => (i) => (name !== "recall" && t.out.has(i) ? NaN : ratio(name, c, at * k, i));
  const columns = [["class", (i) => i], ["recall", own("recall")], ...(t.against ? [["recall, change", shift("recall")]] : []), ["precision", own("precision")],
    ["IoU", own("iou")], ...(t.against ? [["IoU, change", shift("iou")]] : []), ["F1", own("f1")], ["units", (i) => c.support[i]], ["predicted", (i) => c.predicted[at * k + i]]];
  if (t.shots) columns.push(["trained on", (i) => t.shots.samples[i]]);
  const bars = new Set(["recall", "precision", "IoU", "F1"]);
  const more = t.against ? [["precision, change", shift("precision")], ["F1, change", shift("f1")]] : []; // no room for them but in the copy
  const cells = (i, which = columns) => which.map(([name, get]) => {
    if (name === "class") return named(i);
    const v = get(i);
    return bars.has(name) ? { ...of(PERCENT, v), bar: v } : name.endsWith(", change") ? of(PERCENT, v, true) : whole(v);
  });
  const search = make("input", { type: "search" }), found = make("span", { class: "key" }), tools = make("div", { class: "tools" });
  const heads = make("tr"), top = make("tr", { class: "gap", "aria-hidden": "true" }, make("td", { colspan: columns.length }));
  const last = top.cloneNode(true), body = make("tbody", {}, top, last);
  const made = make("table", {}, make("caption", { class: "away" }, "Classes"), make("thead", {}, heads), body);
  const box = make("div", { class: `scroll rows${k > WHOLE ? " tall" : ""}`, tabindex: "0", role: "group", "aria-label": "Classes" }, made);
  const index = Array.from({ length: k }, (_, i) => i), pool = [];
  let order = index, printing = false, height = ROW, room = 400, above = 0; // kept: to ask for them at each step is a layout more
  const measured = () => { room = box.clientHeight || 400; above = box.scrollTop; };
  const sorted = () => {
    const get = (columns.find(([name]) => name === view.s) || columns[0])[1], text = view.q.toLowerCase();
    const some = text ? index.filter((i) => named(i).toLowerCase().includes(text) || String(i) === text) : index;
    const keys = new Float64Array(k);
    for (const i of some) keys[i] = get(i);
    const less = (i, j) => (keys[i] === keys[j] ? i - j : Number.isNaN(keys[i]) ? 1 : Number.isNaN(keys[j]) ? -1 : view.d * (keys[i] - keys[j]));
    order = view.s === "class" && view.d > 0 ? some : [...some].sort(less);
  };
  const rows = () => {
    const seen = printing ? order.length : Math.ceil(room / height) + 2, n = Math.min(order.length, seen);
    const first = Math.max(0, Math.min(Math.floor(above / height) - 1, order.length - n));
    while (pool.length < n) { const row = make("tr"); pool.push(row); body.insertBefore(row, last); }
    pool.forEach((row, j) => {
      row.hidden = j >= n;
      if (j < n) { put(row, cells(order[first + j])); set(row, "aria-rowindex", first + j + 2); }
    });
    top.firstChild.style.height = `${first * height}px`;
    last.firstChild.style.height = `${(order.length - first - n) * height}px`;
    top.hidden = !first; last.hidden = order.length === first + n;
  };
  const again = () => { sorted(); rows(); };
  const told = () => {
    say(found, order.length === k ? `${k.toLocaleString("en")} classes` : `${order.length.toLocaleString("en")} of ${k.toLocaleString("en")} classes`);
    set(made, "aria-rowcount", order.length + 1);
    columns.forEach(([name], j) => set(heads.children[j], "aria-sort", name !== view.s ? "none" : view.d > 0 ? "ascending" : "descending"));
  };
  for (const [name] of columns) {
    heads.append(make("th", { scope: "col", ...(name.endsWith(", change") ? { class: "narrow" } : {}) }, button(name, () => {
      view.d = view.s === name ? -view.d : name === "class" ? 1 : -1; view.s = name;
      box.scrollTop = above = 0; again(); told(); keep();
    })));
  }
  search.value = view.q;
  search.oninput = () => { view.q = search.value; box.scrollTop = above = 0; again(); told(); keep(); };
  box.onscroll = () => { measured(); rows(); };
  tools.append(make("label", {}, "class ", search), found, button("copy as CSV", () => copy("Classes",
    [[...columns, ...more].map(([name]) => name), ...order.map((i) => cells(i, [...columns, ...more]))])));
  parent.append(tools, box);
  again(); told();
  height = pool[0]?.getBoundingClientRect().height || ROW;
  measured(); rows();
  onbeforeprint = () => { printing = k <= 2000; rows(); };
  onafterprint = () => { printing = false; rows(); };
  moves.push(() => (["class", "units", "trained on"].includes(view.s) ? rows() : again()));
  return () => { measured(); rows(); };
}
function shots(parent) {
  if (!t.shots) return;
  const groups = t.shots.names.map((name, i) => ({ name, m: { ratio: "recall", among: i, percent: true }, n: t.shots.of.filter((x) => x === i).length }));
  const rows = () => groups.map(({ name, m, n }) => {
    const now = value(t, m, t.counts, at), base = value(t, m, t.base, 0);
    return [name, whole(n), ...(t.against ? [of(m, base)] : []), of(m, now), ...(t.against ? [of(m, now - base, true)] : [])];
  });
  if (groups.filter(({ n }) => n).length < 2) return;
  const head = ["training samples", "classes", ...(t.against ? [short(), "mean recall", "change"] : ["mean recall"])];
  moves.push(table(parent, "Head, medium, tail", head, rows));
}
function groups(parent) {
  if (!t.groups) return;
  const shown = t.metrics.filter((m) => m.shown && m.ratio);
  const rows = () => t.groups.map((one) => [one.name, whole(units(one.counts)), ...shown.flatMap((m) => {
    const now = value(t, m, one.counts, at);
    return t.against ? [of(m, now), of(m, now - value(t, m, one.base, 0), true)] : [of(m, now)];
  })]);
  const head = ["group", "units", ...shown.flatMap((m) => (t.against ? [m.title, "change"] : [m.title]))];
  moves.push(table(parent, "Groups", head, rows));
}
function chosen(parent) {
  const { at: one, average } = t;
  say($("h-chosen"), average ? "Over the conditions" : t.lams.length < 2 ? "Beside the metrics" : t.given ? `At the ${word()} of this page` : `At the chosen ${word()}`);
  if (average) return averages(parent, average);
  if (!one) {
    parent.append(make("p", {}, "Confusion, reliability and McNemar's test are of one lambda, and need a read of the data of their own: unoic page FILES -o FILE has them."));
    return;
  }
  if (t.lams.length > 1) parent.append(make("p", {}, `What follows is of ${spoken(one.lambda)} alone, wherever the slider is.`));
  if (one.mcnemar) {
    const { lost, gained, p, test } = one.mcnemar, n = (x) => x.toLocaleString("en");
    parent.append(make("p", {}, `${n(one.moved)} of ${n(one.n)} labelled units are decided otherwise; ${n(gained)} are right now and were not, ${n(lost)} were right and are not` +
      (p === null ? "." : ` (McNemar's test, ${test}: p = ${Number(p.toPrecision(3))}).`)));
    const rows = Object.entries(one.gain).map(([name, gain]) => {
      const m = about(name), both = one.values[name];
      return [m.title, of(m, known(both[0])), of(m, known(both[1])), of(m, known(gain.gain), true), span(m, gain.interval)];
    });
    parent.append(make("h3", {}, "Changes"));
    table(parent, "Changes", ["metric", short(), spoken(one.lambda), "change", "95 % interval of it"], () => rows);
  }
  if (one.confusion) confusion(parent, one.confusion);
  else parent.append(make("p", {}, "The confusion matrix was not counted."));
  if (one.reliability) reliability(parent, one.reliability);
}
function confusion(parent, { pairs, n, support, matrix }) {
  parent.append(make("h3", {}, "Confusion"));
  if (pairs.length) {
    table(parent, "Confusion", ["truth", "predicted as", "units", "of the class, %"],
      () => pairs.map(([a, b, count]) => [named(a), named(b), whole(count), of(PERCENT, count / support[a])]));
    parent.append(make("p", { class: "key" }, n > pairs.length ? `The ${pairs.length} pairs with most units, of ${n.toLocaleString("en")}.` : "All pairs, those with most units first."));
  } else parent.append(make("p", {}, "No unit is confused."));
  if (!matrix) return;
  const k = t.n_classes, rows = () => Array.from({ length: k }, (_, a) => [named(a), ...Array.from({ length: k }, (_, b) => whole(matrix[a * k + b]))]);
  const fold = make("details", {}, make("summary", {}, "The whole matrix: rows are the truth"));
  parent.append(fold);
  table(fold, "Confusion matrix", ["truth \\ predicted", ...Array.from({ length: k }, (_, b) => named(b))], rows);
}
function reliability(parent, { bins, before, population }) {
  parent.append(make("h3", {}, "Reliability"));
  const box = document.createElementNS(SVG, "svg"), unit = (title) => ({ title, percent: true });
  parent.append(make("p", { class: "key" }, `Accuracy by confidence (the largest probability), of ${population}. Columns: at this ${word()}; dots: ${t.against || ""}; the line: as it should be.`), box);
  set(box, "role", "img"); set(box, "aria-label", "Reliability: accuracy against confidence; the table below has the figures");
  const again = () => {
    const s = frame(box, [0, 1], [0, 1], [unit("confidence"), unit("accuracy")]);
    for (const one of bins) if (one.count) draw(s.under, "rect", { class: "col", "fill-opacity": 0.45, x: s.x(one.from) + 1, width: s.x(one.to) - s.x(one.from) - 2, y: s.y(one.accuracy), height: s.bottom - s.y(one.accuracy) });
    draw(box, "line", { class: "mark", x1: s.x(0), y1: s.y(0), x2: s.x(1), y2: s.y(1) });
    for (const one of before || []) if (one.count) draw(box, "circle", { class: "dot", r: 3, cx: s.x(one.confidence), cy: s.y(one.accuracy) });
  };
  again();
  moves.resized.push(again);
  const rows = bins.map((one, i) => [`${one.from.toFixed(3)} to ${one.to.toFixed(3)}`, ...[one, ...(before ? [before[i]] : [])].flatMap((x) =>
    [whole(x.count), of(PERCENT, known(x.confidence)), of(PERCENT, known(x.accuracy))])]);
  table(parent, "Reliability", ["confidence", "units", "confidence, %", "accuracy, %", ...(before ? ["units before", "confidence before, %", "accuracy before, %"] : [])], () => rows);
}
function images(parent) {
  const found = t.images;
  if (!found) return;
  const moving = found.points > 1, g = () => (moving ? at : 0), w = found.worst.length / found.points, compared = t.against && found.metrics.some((m) => m.before !== null);
  if (!moving && t.lams.length > 1) parent.append(make("p", {}, `What follows is of ${spoken(t.lambda)} alone, wherever the slider is.`));
  const parts = ["mean", "lowest", "25 %", "median", "75 %", "highest"];
  moves.push(table(parent, "Images", ["metric", "images", ...parts, ...(compared ? ["mean, as it is", "change", "95 % interval"] : [])], () => found.metrics.map((m) => {
    const i = g(), ends = m.low && !Number.isNaN(m.low[i]) ? [m.low[i], m.high[i]] : null;
    return [m.title, whole(m.n[i]), of(m, m.mean[i]), ...Array.from(m.quartiles.subarray(5 * i, 5 * i + 5), (v) => of(m, v)),
      ...(compared ? [of(m, known(m.before)), of(m, m.gain ? m.gain[i] : NaN, true), span(m, ends)] : [])];
  })));
  const by = found.metrics.find((m) => m.name === found.worst_by), shown = found.metrics.filter((m) => m === by || metric(m.name)?.shown);
  parent.append(make("p", { class: "key" }, `The worst of ${found.n.toLocaleString("en")} images with labels, by ${by ? by.title : found.worst_by}.`));
  moves.push(table(parent, "Worst images", ["image", "units", ...shown.map((m) => m.title)], () =>
    Array.from(found.worst.subarray(w * g(), w * g() + w)).flatMap((one, i) => (one < 0 ? [] :
      [[found.listed[one][0], whole(found.listed[one][1]), ...shown.map((m) => of(m, m.worst[w * g() + i]))]]))));
  const { images: fallen, before, now, change } = found.losers, l = fallen.length / found.points;
  if (!l || !by) return;
  parent.append(make("p", { class: "key" }, `The images whose ${by.title} falls most.`));
  moves.push(table(parent, "Images that lose", ["image", "units", "as it is", "now", "change"], () =>
    Array.from(fallen.subarray(l * g(), l * g() + l)).flatMap((one, i) => (one < 0 ? [] : [[found.listed[one][0], whole(found.listed[one][1]),
      of(by, before[l * g() + i]), of(by, now[l * g() + i]), of(by, change[l * g() + i], true)]]))));
}
function averages(parent, { average, differences }) {
  parent.append(make("h3", {}, "Averages, to which all conditions count equally"));
  const rows = Object.entries(average).map(([name, v]) => {
    const m = about(name), gain = differences?.average[name];
    return [m.title, of(m, known(v)), ...(gain ? [of(m, known(gain.gain), true), span(m, gain.interval)] : [])];
  });
  table(parent, "Averages", ["metric", "average", ...(differences ? ["change", "95 % interval"] : [])], () => rows);
  const all = page.tabs.filter((one) => one.average), names = Object.keys(average);
  if (all.length < 2) return;
  parent.append(make("h3", {}, "All methods"));
  table(parent, "All methods", ["method", ...names.flatMap((name) => [about(name).title, "change"])], () => all.map((one) => [one.name, ...names.flatMap((name) => {
    const m = about(name), gain = one.average.differences?.average[name];
    return [of(m, known(one.average.average[name])), of(m, gain ? known(gain.gain) : NaN, true)];
  })]));
}
function said(parent) {
  const all = (warnings, notes) => {
    for (const one of warnings) parent.append(make("p", { class: "warning" }, make("strong", {}, `${one.code}: `), one.text));
    if (notes.length) parent.append(make("ul", {}, ...notes.map((text) => make("li", {}, text))));
  };
  if (!t.warnings.length) parent.append(make("p", {}, t.searched ? `No warnings of ${spoken(t.lambda)}.` : "No warnings."));
  all(t.warnings, t.notes);
  if (!t.searched?.warnings.length && !t.searched?.notes.length) return;
  parent.append(make("h3", {}, `Of the search on this data, which takes ${spoken(t.searched.lambda)}`));
  all(t.searched.warnings, t.searched.notes);
}
function origin(parent) {
  const list = make("dl");
  for (const [name, text] of [...t.facts, ["made by", `unoic ${page.unoic}`]]) list.append(make("dt", {}, name), make("dd", {}, text));
  parent.append(list, make("h3", {}, "The command that repeats it"));
  parent.append(page.command ? make("p", {}, make("code", {}, page.command)) : make("p", {}, "It was made in Python, of data or options that no command line can name."));
}

// ---------------------------------------------------------------- the page
const SECTIONS = { metrics, curve, plane, classes, shots, groups, images, chosen, said, origin };
function go(to) {
  at = Math.max(0, Math.min(t.lams.length - 1, Math.round(to) || 0));
  const slider = $("lam"), m = metric(view.m), lam = lambda(t.lams[at]);
  if (Number(slider.value) !== at) slider.value = at;
  say($("now"), lam);
  if (t.shares) say($("each"), each(t.lams[at]));
  set(slider, "aria-valuetext", `${spoken(t.lams[at])}, ${m.title} ${number(series(t, m)[at], m)}`);
  for (const move of moves) move();
  keep();
}
function open(i, lam) {
  tab = i; t = page.tabs[i]; moves = Object.assign([], { resized: [] });
  t.out = new Set(t.ignored);
  const along = t.lams.length > 1, goal = metric(t.goal) || t.metrics[0], names = t.metrics.map((m) => m.name);
  for (const [key, name] of [["m", goal.name], ["x", "miou"], ["y", "macc"]]) if (!names.includes(view[key])) view[key] = names.includes(name) ? name : names[0];
  say($("about"), `${t.n.toLocaleString("en")} labelled units, ${t.n_ignored.toLocaleString("en")} ignored, ${t.n_classes.toLocaleString("en")} classes` +
    (page.tabs.length > 1 ? `: ${t.name}` : ""));
  if (t.warnings.length) $("metrics").after($("said")); else $("origin").before($("said"));
  const slider = $("lam");
  slider.max = t.lams.length - 1; slider.disabled = !along; $("bar").hidden = !along && !t.against;
  slider.hidden = !along;
  say($("word"), word()); say($("h-curve"), t.shares ? "Along the factor" : "Along lambda"); $("each").hidden = !t.shares;
  say($("hint"), !along ? "" : t.shares ? `factor of lambda ${each(1)}: 0 as it is` : "strength of rebalancing: 0 as it is, 1 as the counts say");
  at = lam === undefined ? t.chosen : nearest(lam);
  slider.value = at;
  const jumps = [["0", 0], [t.shares ? "factor 1" : "1", 1], [t.given ? "given" : "chosen", t.lams[t.chosen]]].filter(([, v]) => along && t.lams.includes(v));
  $("jumps").replaceChildren(...jumps.flatMap(([name, v]) => [button(name, () => go(nearest(v))), " "]));
  for (const [name, fill] of Object.entries(SECTIONS)) {
    const section = $(name);
    while (section.children.length > 1) section.lastChild.remove();
    section.hidden = !along && (name === "curve" || name === "plane");
    if (section.hidden) continue;
    const again = fill(section);
    if (again) moves.resized.push(again);
    section.hidden = section.children.length < 2;
  }
  [...$("tabs").children].forEach((one, j) => { set(one, "aria-selected", j === i); set(one, "tabindex", j === i ? 0 : -1); });
  if (page.tabs.length > 1) { set($("panel"), "role", "tabpanel"); set($("panel"), "aria-labelledby", `tab-${i}`); }
  go(at);
}
let timer = 0, kept = "";
function keep() { // the address says what is shown
  clearTimeout(timer);
  timer = setTimeout(() => {
    kept = "#" + new URLSearchParams({ t: tab, l: lambda(t.lams[at]), ...view });
    try { history.replaceState(null, "", kept); } catch { /* an address that cannot change */ }
  }, 250);
}
function restored() {
  const told = new URLSearchParams(location.hash.slice(1)), i = Math.min(Math.max(Number(told.get("t")) || 0, 0), page.tabs.length - 1);
  for (const key of ["m", "x", "y", "s", "q"]) if (told.has(key)) view[key] = told.get(key);
  view.d = told.get("d") === "-1" ? -1 : 1;
  const lam = told.has("l") ? Number(told.get("l")) : NaN;
  open(Math.trunc(i), Number.isFinite(lam) ? lam : undefined);
}
async function begin() {
  page = await unpacked();
  say($("title"), page.title);
  $("main").hidden = false;
  if (page.tabs.length > 1) {
    $("tabs").hidden = false;
    page.tabs.forEach((one, i) => {
      const made = make("button", { type: "button", role: "tab", id: `tab-${i}`, "aria-controls": "panel" }, one.name);
      made.onclick = () => open(i, t.lams[at]);
      made.onkeydown = (event) => {
        const n = page.tabs.length, to = { ArrowRight: (i + 1) % n, ArrowLeft: (i + n - 1) % n, Home: 0, End: n - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault(); open(to, t.lams[at]); $(`tab-${to}`).focus();
      };
      $("tabs").append(made);
    });
  }
  restored();
  $("lam").oninput = () => go(Number($("lam").value));
  $("bar").onsubmit = (event) => event.preventDefault();
  onhashchange = () => { if (location.hash !== kept) restored(); };
  let width = innerWidth;
  onresize = () => { if (innerWidth !== width) { width = innerWidth; for (const again of moves.resized) again(); } };
  set(document.documentElement, "data-ready", "");
}
begin().catch((error) => { const box = $("trouble"); box.hidden = false; say(box, `This page cannot be shown: ${error.message}`); throw error; });
})();
