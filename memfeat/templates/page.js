// Tables that sort and filter, rows to compare, and dots that show their videos.
// Everything it shows is in the page; it asks nothing of any server.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const MOST_APART = 6; // videos of a comparison

  const make = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const number = (value, digits = 3, plus = "") =>
    (value < 0 ? "\u2212" : plus) + Math.abs(value).toFixed(digits);
  const bounds = (low, high, plus = "") => `[${number(low, 3, plus)}, ${number(high, 3, plus)}]`;
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const setOf = (system) => data.sets[data.systems[system].set];
  const predicted = (system, video) => {
    const { predictions, margin } = data.systems[system];
    const score = predictions[video];
    if (margin === null) return number(score);
    return `${number(score)} ${bounds(within(score - margin, 0, 1), within(score + margin, 0, 1))}`;
  };
  const picture = (system, video) => {
    const { ids, thumbnails } = setOf(system);
    return thumbnails[video]
      ? make("img", { src: thumbnails[video], alt: `A frame of ${ids[video]}` })
      : make("span", { class: "placeholder" }, "no picture in this page");
  };
  const facts = (system, video, ...lines) => {
    const { ids, truth } = setOf(system);
    const all = [`measured ${number(truth[video])}`, ...lines];
    return make("span", { class: "facts" }, make("b", { class: "id" }, ids[video]),
      ...all.map((line) => make("span", {}, line)));
  };
  const ranked = (values) => [...values.keys()].sort((a, b) => values[a] - values[b] || a - b);

  // --- scatters ---

  const plots = [];

  class Plot {
    constructor(figure) {
      this.figure = figure;
      this.system = Number(figure.dataset.system);
      this.box = figure.querySelector(".plot");
      this.svg = figure.querySelector("svg");
      this.ring = figure.querySelector(".ring");
      const { low, high, edges } = this.box.dataset;
      const [left, right, top, bottom] = edges.split(" ").map(Number);
      const share = (value) => (value - low) / (high - low);
      const { truth } = setOf(this.system);
      const { name, predictions } = data.systems[this.system];
      this.x = truth.map((value) => left + share(value) * (right - left));
      this.y = predictions.map((value) => bottom - share(value) * (bottom - top));
      this.quarter = (video) =>
        2 * (this.y[video] > (top + bottom) / 2) + (this.x[video] > (left + right) / 2);
      this.dots = [0, 0, 0, 0]; // in each quarter
      for (const video of truth.keys()) this.dots[this.quarter(video)]++;
      this.orders = { truth: ranked(truth), prediction: ranked(predictions) };
      const errors = truth.map((value, video) => -Math.abs(value - predictions[video]));
      this.video = ranked(errors)[0]; // where a keyboard starts: the worst
      this.pinned = null;
      this.tip = make("div", { class: "tip", hidden: "" });
      this.pin = make("div", { class: "pinned", "aria-live": "polite", hidden: "" });
      this.box.append(this.tip);
      figure.append(this.pin);
      for (const [attribute, value] of Object.entries({
        tabindex: 0, role: "slider", "aria-label": `Videos of ${name}`,
        "aria-valuemin": 1, "aria-valuemax": truth.length,
      })) this.box.setAttribute(attribute, value);
      this.tell(this.video);
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerdown", (event) => this.point(event));
      this.box.addEventListener("pointerleave", () => this.leave());
      this.svg.addEventListener("click", (event) => this.point(event) && this.hold());
      this.box.addEventListener("focus", () => {
        if (this.box.matches(":focus-visible")) this.show(this.video);
      });
      this.box.addEventListener("blur", () => this.leave());
      this.box.addEventListener("keydown", (event) => this.key(event));
    }

    // Shows the dot that a pointer is nearest to; returns whether there is one.
    point(event) {
      const { left, top, width } = this.svg.getBoundingClientRect();
      const scale = this.svg.viewBox.baseVal.width / width;
      const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
      let [nearest, least] = [null, (event.pointerType === "touch" ? 28 : 16) ** 2];
      for (let video = 0; video < this.x.length; video++) {
        const distance = (this.x[video] - x) ** 2 + (this.y[video] - y) ** 2;
        if (distance < least) [nearest, least] = [video, distance];
      }
      if (nearest === null) this.leave();
      else this.show(nearest);
      return nearest !== null;
    }

    tell(video) {
      const { ids, truth } = setOf(this.system);
      this.box.setAttribute("aria-valuenow", this.orders.truth.indexOf(video) + 1);
      this.box.setAttribute("aria-valuetext", `${ids[video]}, measured ${number(truth[video])}, ` +
        `predicted ${predicted(this.system, video)}`);
    }

    show(video) {
      this.video = video;
      this.tell(video);
      for (const plot of plots) plot.mark(setOf(plot.system) === setOf(this.system) ? video : null);
      this.tip.replaceChildren(picture(this.system, video),
        facts(this.system, video, `predicted ${predicted(this.system, video)}`));
      // In a quarter that the dot is not in, where it covers the fewest others.
      const free = ranked(this.dots).find((quarter) => quarter !== this.quarter(video));
      this.tip.classList.toggle("left", free % 2 === 0);
      this.tip.classList.toggle("above", free < 2);
      this.tip.hidden = false;
    }

    // Rings a dot; null rings the one that is pinned, if any.
    mark(video) {
      const shown = video ?? this.pinned;
      this.ring.classList.toggle("on", shown !== null);
      if (shown === null) return;
      this.ring.setAttribute("cx", this.x[shown]);
      this.ring.setAttribute("cy", this.y[shown]);
    }

    leave() {
      this.tip.hidden = true;
      for (const plot of plots) plot.mark(null);
    }

    hold(video = this.video) {
      this.pinned = video;
      this.pin.hidden = video === null;
      if (video !== null) {
        const close = make("button", { type: "button" }, "Unpin");
        close.addEventListener("click", () => this.hold(null));
        this.pin.replaceChildren(
          make("div", { class: "card" }, picture(this.system, video),
            facts(this.system, video, `predicted ${predicted(this.system, video)}`), close),
          ...this.timeline(video));
      }
      this.mark(null);
    }

    timeline(video) {
      const same = [...data.systems.keys()].filter((own) => setOf(own) === setOf(this.system));
      for (const system of [this.system, ...same]) {
        const found = document.querySelector(`template[data-timeline="${system} ${video}"]`);
        if (found) {
          const words = `Timeline by ${data.systems[system].name}: what each frame does to the ` +
            "score, blue where it raises it, and above that the frame's weight, if it has one.";
          return [found.content.cloneNode(true), make("p", { class: "fine" }, words)];
        }
      }
      const words = "No timeline of it is in this page; memfeat predict with --timeline draws one.";
      return [make("p", { class: "fine" }, words)];
    }

    key(event) {
      const steps = {
        ArrowRight: ["truth", 1], ArrowLeft: ["truth", -1],
        ArrowUp: ["prediction", 1], ArrowDown: ["prediction", -1],
        PageUp: ["truth", 10], PageDown: ["truth", -10],
        Home: ["truth", -Infinity], End: ["truth", Infinity],
      };
      if (event.target !== this.box) return;
      if (event.key in steps) {
        const [by, step] = steps[event.key];
        const order = this.orders[by];
        this.show(order[within(order.indexOf(this.video) + step, 0, order.length - 1)]);
      } else if (event.key === "Enter" || event.key === " ") this.hold();
      else if (event.key === "Escape" && !this.tip.hidden) this.leave();
      else if (event.key === "Escape") this.hold(null);
      else return;
      event.preventDefault();
    }
  }

  for (const figure of document.querySelectorAll("figure.scatter")) {
    if (setOf(figure.dataset.system).ids.length) plots.push(new Plot(figure));
  }

  // --- tables ---

  const panel = document.getElementById("compare");
  let picked = []; // checkboxes, in the order in which they were chosen

  const value = (row, column) => {
    const cell = row.cells[column];
    const exact = cell.querySelector("data");
    if (!cell.classList.contains("number")) return cell.textContent.trim();
    return exact ? Number(exact.value) : null; // null comes last either way
  };
  const sort = (body, rows, head, column) => {
    const before = head.getAttribute("aria-sort");
    const falls = before ? before === "ascending" : head.classList.contains("number");
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const keyed = rows.map((row) => [value(row, column), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return falls ? -order : order;
    });
    body.append(...keyed.map(([, row]) => row));
  };
  const filter = (region, rows) => {
    const input = make("input", { type: "search", autocomplete: "off" });
    const status = make("span", { role: "status" });
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
      const shown = rows.filter((row) => !row.hidden).length;
      status.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
    });
    const hint = panel ? "Choose two rows to compare them." : "";
    region.before(make("div", { class: "tools" },
      make("label", {}, "Filter rows ", input), status, make("span", {}, hint)));
  };
  const pick = (row) => {
    const { name } = data.systems[row.dataset.system];
    const attributes = { type: "checkbox", class: "pick", "aria-label": `compare ${name}` };
    const box = make("input", attributes);
    box.dataset.system = row.dataset.system;
    box.addEventListener("change", () => {
      picked = picked.filter((other) => other !== box);
      if (box.checked) picked.push(box);
      while (picked.length > 2) picked.shift().checked = false;
      compare(picked.map((each) => Number(each.dataset.system)));
    });
    row.cells[0].prepend(box);
  };

  const compare = ([a, b]) => {
    panel.hidden = b === undefined;
    if (panel.hidden) return;
    const [first, second] = [data.systems[a], data.systems[b]];
    const title = make("h3", {}, `${first.name} against ${second.name}`);
    if (first.set !== second.set) {
      const words = "The two rows are of different videos, so there is nothing to compare.";
      panel.replaceChildren(title, make("p", {}, words));
      return;
    }
    const { ids, truth } = setOf(a);
    const known = data.differences[`${a} ${b}`];
    const turned = (value) => (value === null ? null : -value);
    const [difference, low, high] = known ?? (([v, l, h]) => [turned(v), turned(h), turned(l)])(
      data.differences[`${b} ${a}`]);
    const so = low > 0 ? "the first ranks videos like these better" :
      high < 0 ? "the second ranks videos like these better" :
      "these videos do not show which of the two is better";
    const shown = difference === null ? "undefined" : number(difference, 3, "+");
    const interval = low === null ? "." : ` ${bounds(low, high, "+")}: ${so}. The brackets are a ` +
      `95 % interval over videos, from ${data.bootstrap} resamples, the same for both.`;
    const error = (system, video) => Math.abs(system.predictions[video] - truth[video]);
    const nearer = truth.filter((_, video) => error(first, video) < error(second, video)).length;
    const apart = ranked(truth.map((_, video) =>
      -Math.abs(first.predictions[video] - second.predictions[video]))).slice(0, MOST_APART);
    panel.replaceChildren(title,
      make("p", {}, "SROCC of the first minus that of the second on the same ",
        `${truth.length} videos: `, make("b", {}, shown), interval),
      make("p", {}, `The first is nearer to the measured score for ${nearer} of them. `,
        "The videos on which the two disagree most:"),
      make("ol", { class: "pairs" }, ...apart.map((video) => make("li", { class: "card" },
        picture(a, video),
        facts(a, video, `${first.name}: ${number(first.predictions[video])}`,
          `${second.name}: ${number(second.predictions[video])}`)))));
  };

  for (const table of document.querySelectorAll("table.results")) {
    const body = table.tBodies[0];
    const rows = [...body.rows].filter((row) => !row.classList.contains("ceiling"));
    if (rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => sort(body, rows, head, column));
      head.append(button);
    });
    if (panel) for (const row of rows) if (row.dataset.system) pick(row);
    table.classList.toggle("picks", panel !== null);
    if (rows.length > 3) filter(table.parentNode, rows);
  }
  for (const each of document.querySelectorAll(".scripted")) each.hidden = false;
})();
