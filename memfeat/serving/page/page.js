// The page of `memfeat serve`. Names of files and messages only ever become text, never markup.
"use strict";

const MOST_COMPARED = 6;
const ENDED = ["done", "failed", "cancelled"];
const sent = new Map(); // the files that this page sent, by the ids that the server gave them
const chosen = new Set(); // ids to compare
const waiting = []; // files to be sent, one after another
let server = null, shown = null, watching = false, changed = false, sending = false;

const find = (id) => document.getElementById(id);
const fixed = (number, digits) => (number == null ? "" : number.toFixed(digits));

function make(tag, text, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text != null) element.textContent = text;
  return element;
}

function fill(id, tag, texts) {
  find(id).replaceChildren(...texts.map((text) => make(tag, text)));
}

function say(text, bad = false) {
  find("said").textContent = text;
  find("said").classList.toggle("bad", bad);
}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response.json();
  const answer = await response.json().catch(() => ({}));
  const detail = typeof answer.detail === "string" ? answer.detail : response.statusText;
  throw Object.assign(new Error(detail), { status: response.status });
}

// --- sending ---

function add(files) {
  waiting.push(...files);
  if (!sending) send();
}

async function send() {
  sending = true;
  while (waiting.length) {
    const file = waiting[0];
    say(`sending ${file.name}`);
    try {
      if (file.size > server.most_bytes) throw new Error("it is larger than this server takes");
      const query = new URLSearchParams({ name: file.name, scorer: find("scorer").value });
      const video = await ask(`api/videos?${query}`, { method: "POST", body: file });
      sent.set(video.id, file);
      say(`${file.name} was sent`);
    } catch (error) {
      if (error.status === 429) { // wait for a place, and try this one again
        await new Promise((resume) => setTimeout(resume, 2000));
        continue;
      }
      say(`${file.name} was not sent: ${error.message}`, true);
    }
    waiting.shift();
    watch();
  }
  sending = false;
}

// --- the list ---

async function watch() {
  changed = true;
  if (watching) return;
  watching = true;
  try {
    let videos = [];
    while (changed || sending || videos.some((video) => !ENDED.includes(video.state))) {
      changed = false;
      videos = await ask("api/videos");
      list(videos);
      await new Promise((resume) => setTimeout(resume, 500));
    }
  } catch (error) {
    say(`the server does not answer: ${error.message}`, true);
  } finally {
    watching = false;
  }
}

const rows = new Map(); // each video's row, by id

function list(videos) {
  find("videos").hidden = videos.length === 0;
  const ids = new Set(videos.map((video) => video.id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.remove();
    for (const kept of [rows, chosen, sent]) kept.delete(id);
  }
  for (const video of videos) {
    if (!rows.has(video.id)) rows.set(video.id, find("rows").appendChild(make("tr")));
    const row = rows.get(video.id);
    if (row.dataset.state !== video.state) {
      row.dataset.state = video.state;
      draw(row, video).catch(({ message }) => draw(row, { ...video, state: "failed", message }));
    }
    progress(row, video);
  }
  count();
}

async function draw(row, video) {
  const prediction = video.state === "done" && (await ask(`api/videos/${video.id}`)).prediction;
  const name = make("th", video.name, { scope: "row" });
  name.append(make("small", video.scorer));
  const actions = make("td");
  row.replaceChildren(make("td"), name);
  if (prediction) {
    const box = make("input", null, { type: "checkbox", checked: chosen.has(video.id) });
    box.setAttribute("aria-label", `compare ${video.name}`);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(video.id);
      else chosen.delete(video.id);
      count();
    });
    row.firstChild.append(box);
    const [low, high] = prediction.interval ?? [];
    const percentile = prediction.percentile == null ? "" : `${fixed(prediction.percentile, 0)} %`;
    const score = cell("score", fixed(prediction.score, 3));
    if (prediction.status !== "ok") score.append(make("small", prediction.status));
    row.append(
      score,
      cell("90 % interval", low == null ? "" : `${fixed(low, 3)} to ${fixed(high, 3)}`),
      cell("percentile", percentile),
      cell("familiarity", fixed(prediction.familiarity, 2)),
    );
    actions.append(button("Show", video.name, () => show(video.id)));
  } else {
    const state = make("td", null, { colSpan: 4 });
    if (video.state === "scoring") {
      const bar = make("progress");
      bar.setAttribute("aria-label", `scoring ${video.name}`);
      state.append(bar, "");
    } else {
      state.textContent = video.message || video.state;
    }
    row.append(state);
  }
  const word = ENDED.includes(video.state) ? "Remove" : "Cancel";
  actions.append(button(word, video.name, () => remove(video.id)));
  row.append(actions);
}

function progress(row, video) {
  const bar = row.querySelector("progress"), file = sent.get(video.id);
  if (!bar) return;
  bar.nextSibling.data = ` ${fixed(video.decoded_seconds, 1)} s decoded`;
  if (file?.seconds) bar.value = Math.min(1, video.decoded_seconds / file.seconds);
  else if (file && file.seconds === undefined) measure(file);
}

function cell(label, text) {
  const made = make("td", text);
  made.dataset.label = label; // shown where there is no room for the table's head
  return made;
}

function button(word, name, act) {
  const made = make("button", word, { type: "button" });
  made.setAttribute("aria-label", `${word} ${name}`);
  made.addEventListener("click", () =>
    act().catch((error) => say(`${name}: ${error.message}`, true)),
  );
  return made;
}

function measure(file) {
  file.seconds = 0; // not known, and perhaps never: the browser may not play what FFmpeg does
  const probe = make("video", null, { preload: "metadata", src: URL.createObjectURL(file) });
  for (const kind of ["loadedmetadata", "error"]) {
    probe.addEventListener(kind, () => {
      file.seconds = Number.isFinite(probe.duration) ? probe.duration : 0;
      URL.revokeObjectURL(probe.src);
    });
  }
}

async function remove(id) {
  await ask(`api/videos/${id}`, { method: "DELETE" }).catch(() => null);
  if (shown === id) find("shown").hidden = true;
  watch();
}

function count() {
  find("compare").disabled = chosen.size < 2 || chosen.size > MOST_COMPARED;
}

async function compare() {
  try {
    const found = await ask("api/comparison", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ videos: [...chosen] }),
    });
    fill("differences", "li", found.lines);
    find("compared").hidden = false;
    find("compared-title").focus();
  } catch (error) {
    say(`these cannot be compared: ${error.message}`, true);
  }
}

// --- one video ---

async function show(id) {
  const video = await ask(`api/videos/${id}`);
  const prediction = video.prediction;
  shown = id;
  find("shown").hidden = false;
  find("shown-title").textContent = video.name;
  const spread = prediction.score_std == null ? "" : ` ± ${fixed(prediction.score_std, 3)} over seeds`;
  const [low, high] = prediction.interval ?? [];
  const range = low == null ? "" : `; 90 % interval ${fixed(low, 3)} to ${fixed(high, 3)}`;
  find("verdict").textContent = `predicted score ${fixed(prediction.score, 3)}${spread}${range}`;
  const cautions = Object.entries(prediction.cautions).map(([code, text]) => `${code}: ${text}`);
  fill("cautions", "li", prediction.message ? [prediction.message, ...cautions] : cautions);
  fill("sources", "li", prediction.sources);
  warn("sources", video.scorer);
  const player = find("player"), file = sent.get(id);
  URL.revokeObjectURL(player.src);
  if (file) player.src = URL.createObjectURL(file);
  player.hidden = !file;
  find("no-player").hidden = Boolean(file);
  find("picture").src = find("png").href = `api/videos/${id}/timeline.png`;
  find("png").download = `${video.name}.png`;
  find("picture").alt = describe(prediction);
  find("timeline").dataset.axis = JSON.stringify(video.timeline);
  find("cursor").hidden = true;
  strongest(prediction);
  find("shown-title").focus();
}

function ranked(prediction, sign) {
  const effects = (prediction.effects ?? []).map((effect, index) => ({ effect, index }));
  return effects
    .filter(({ effect }) => sign * effect > 0)
    .sort((a, b) => sign * (b.effect - a.effect))
    .slice(0, 3)
    .map(({ effect, index }) => ({ effect, seconds: prediction.pts_seconds[index] }));
}

function describe(prediction) {
  if (!prediction.effects) return `Frames of the video. ${prediction.effects_undefined}`;
  const moments = (sign) => ranked(prediction, sign).map(({ seconds }) => `${fixed(seconds, 2)} s`);
  const up = moments(1).join(", ") || "none", down = moments(-1).join(", ") || "none";
  return `What each frame does to the score over time. Raised most at ${up}; lowered most at ${down}.`;
}

function strongest(prediction) {
  const parts = [];
  for (const [sign, words] of [[1, "Frames that raise the score most"], [-1, "and lower it most"]]) {
    const frames = ranked(prediction, sign);
    if (!frames.length) continue;
    parts.push(make("strong", words));
    for (const { effect, seconds } of frames) {
      const text = `${fixed(seconds, 2)} s (${effect > 0 ? "+" : ""}${effect.toPrecision(2)})`;
      const moment = make("button", text, { type: "button" });
      moment.addEventListener("click", () => seek(seconds));
      parts.push(moment);
    }
  }
  find("strongest").replaceChildren(...parts);
}

function seek(seconds) {
  if (!find("player").hidden) find("player").currentTime = seconds;
  point(seconds);
}

function point(seconds) {
  const axis = JSON.parse(find("timeline").dataset.axis ?? "null");
  if (!axis) return;
  const share = (seconds - axis.from_seconds) / (axis.to_seconds - axis.from_seconds);
  const left = axis.left + Math.min(1, Math.max(0, share)) * (axis.right - axis.left);
  find("cursor").style.left = `${100 * left}%`;
  find("cursor").hidden = false;
}

function click(event) {
  const axis = JSON.parse(find("timeline").dataset.axis ?? "null");
  if (!axis) return;
  const box = find("picture").getBoundingClientRect();
  const share = ((event.clientX - box.left) / box.width - axis.left) / (axis.right - axis.left);
  const span = axis.to_seconds - axis.from_seconds;
  seek(axis.from_seconds + Math.min(1, Math.max(0, share)) * span);
}

// --- start ---

function notes() {
  const scorer = find("scorer").value;
  fill("notes", "li", server.scorers.find(({ name }) => name === scorer)?.notes ?? []);
  warn("notes", scorer);
}

function warn(list, scorer) {
  const warnings = server.scorers.find(({ name }) => name === scorer)?.warnings ?? [];
  for (const line of find(list).children) {
    line.classList.toggle("warning", warnings.includes(line.textContent));
  }
}

async function start() {
  server = await ask("api/server");
  find("scorer").replaceChildren(
    ...server.scorers.map(({ name }) => make("option", name, { value: name })),
  );
  const megabytes = Math.round(server.most_bytes / 1e6);
  find("taken").textContent = `${server.suffixes.join(" ")}, up to ${megabytes} MB each`;
  find("files").accept = server.suffixes.join(",");
  notes();
  find("scorer").addEventListener("change", notes);
  find("files").addEventListener("change", () => {
    add(find("files").files);
    find("files").value = "";
  });
  const drop = find("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // or the browser would open the file
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") add(event.dataTransfer.files);
    });
  }
  find("compare").addEventListener("click", compare);
  find("player").addEventListener("timeupdate", () => point(find("player").currentTime));
  find("timeline").addEventListener("click", click);
  watch();
}

start().catch((error) => say(`the server does not answer: ${error.message}`, true));
