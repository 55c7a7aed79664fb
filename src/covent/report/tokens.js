// Rollouts, token by token: unpacked when they come into view, one page of them at a time.
(() => {
  "use strict";
  const { element, isolated, number, inflated, subjects } = window.covent;
  const section = document.getElementById("rollouts");
  if (!document.getElementById("rollout-data")) return;
  const PER_PAGE = 20;
  const TOKENS_AT_ONCE = 600;
  const SELECTED = 1;
  const CUT = 2;
  const list = section.querySelector(".rollout-list");
  const card = document.getElementById("token-card");
  const form = section.querySelector("form");
  const input = (name) => form.elements[name];
  let data = null;
  let page = 0;
  let found = [];

  // ---- unpacking ---------------------------------------------------------------------------------------------------

  function planes(bytes, kind, size) {
    const width = { uint8: 1, uint16: 2, uint32: 4, float32: 4 }[kind];
    const out = new Uint8Array(size * width);
    for (let plane = 0; plane < width; plane += 1) {
      for (let place = 0; place < size; place += 1) out[place * width + plane] = bytes[plane * size + place];
    }
    return new { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array }[kind](out.buffer);
  }

  async function unpacked() {
    const whole = await inflated("rollout-data");
    const length = new DataView(whole.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(whole.subarray(4, 4 + length)));
    let at = 4 + length;
    const columns = {};
    for (const { name, kind, size } of header.columns) {
      const width = { uint8: 1, uint16: 2, uint32: 4, float32: 4 }[kind];
      columns[name] = planes(whole.subarray(at, at + size * width), kind, size);
      at += size * width;
    }
    return digested(header, columns);
  }

  function digested(header, columns) {
    const { rollouts } = header;
    const count = rollouts.length.length;
    const first = new Uint32Array(count + 1);
    for (let place = 0; place < count; place += 1) first[place + 1] = first[place] + rollouts.length[place];
    const mean = (column) =>
      Array.from({ length: count }, (_, place) => {
        let sum = 0;
        for (let token = first[place]; token < first[place + 1]; token += 1) sum += column[token];
        return sum / (first[place + 1] - first[place]);
      });
    const most = (column) =>
      Array.from({ length: count }, (_, place) => Math.max(...column.subarray(first[place], first[place + 1])));
    const nothing = () => Array(count).fill(NaN);
    const spaced = !header.strings.some((text) => text.startsWith("Ġ") || text.startsWith("▁"));
    return {
      ...header,
      columns,
      first,
      count,
      spaced,
      meanEntropy: mean(columns.entropies),
      meanCovariance: columns.covariances ? mean(columns.covariances) : nothing(),
      mostCovariance: columns.covariances ? most(columns.covariances) : nothing(),
    };
  }

  // ---- colours -----------------------------------------------------------------------------------------------------

  const logp = (token) => data.columns.logprobs[token];
  const optional = (name, token) => (data.columns[name] ? data.columns[name][token] : NaN);
  const advantage = (rollout) => data.rollouts.advantage[rollout];
  const MODES = {
    entropy: { of: (token) => data.columns.entropies[token], unit: "nats", full: 1, root: true },
    "entropy-after": { of: (token) => optional("after_entropies", token), unit: "nats", full: 1, root: true },
    "entropy-change": {
      of: (token) => optional("after_entropies", token) - data.columns.entropies[token],
      unit: "nats",
    },
    covariance: { of: (token) => optional("covariances", token), unit: "" },
    polarity: {
      of: (token, rollout) => -advantage(rollout) * (logp(token) + data.columns.entropies[token]),
      unit: "nats per unit of step size",
    },
    probability: { of: (token) => Math.exp(logp(token)), unit: "", full: 1 },
    "probability-after": { of: (token) => Math.exp(optional("after_logprobs", token)), unit: "", full: 1 },
    "probability-change": {
      of: (token) => Math.exp(optional("after_logprobs", token)) - Math.exp(logp(token)),
      unit: "",
    },
    advantage: { of: (_, rollout) => advantage(rollout), unit: "" },
    chosen: { of: (token) => data.columns.flags[token], unit: "", flags: true },
  };

  function scaleOf(mode) {
    if (mode.full) return mode.full;
    if (mode.scale) return mode.scale;
    const sizes = [];
    const every = Math.max(1, Math.floor(data.first[data.count] / 20000));
    for (let rollout = 0, token = 0; token < data.first[data.count]; token += every) {
      while (data.first[rollout + 1] <= token) rollout += 1;
      const size = Math.abs(mode.of(token, rollout));
      if (size > 0) sizes.push(size);
    }
    sizes.sort((a, b) => a - b);
    mode.scale = sizes[Math.floor(0.98 * (sizes.length - 1))] ?? 1;
    return mode.scale;
  }

  function background(mode, token, rollout) {
    const value = mode.of(token, rollout);
    if (mode.flags) {
      if (value & CUT) return "rgb(var(--cool) / var(--full))";
      return value & SELECTED ? "rgb(var(--warm) / var(--full))" : "";
    }
    if (!Number.isFinite(value) || value === 0) return "";
    const share = Math.min(1, Math.abs(value) / scaleOf(mode));
    const strength = (mode.root ? Math.sqrt(share) : share).toFixed(3);
    return `rgb(var(--${value > 0 ? "warm" : "cool"}) / calc(${strength} * var(--full)))`;
  }

  function showScale(mode) {
    const scale = section.querySelector(".scale");
    scale.replaceChildren();
    const swatch = (text, color) => {
      const made = element("span", text, "token");
      made.style.background = color;
      scale.append(made);
    };
    if (mode.flags) {
      swatch("chosen by the control", "rgb(var(--warm) / var(--full))");
      swatch("gradient cut by the clip of the ratio", "rgb(var(--cool) / var(--full))");
      return;
    }
    const full = scaleOf(mode);
    const ends = mode.full ? [0, 0.1, 0.5, 1] : [-1, -0.5, 0, 0.5, 1];
    for (const end of ends) {
      const strength = mode.root ? Math.sqrt(Math.abs(end)) : Math.abs(end);
      const color = end === 0 ? "" : `rgb(var(--${end > 0 ? "warm" : "cool"}) / calc(${strength} * var(--full)))`;
      swatch(`${number(end * full, 2)}${Math.abs(end) === 1 && !mode.full ? " or more" : ""} ${mode.unit}`, color);
    }
  }

  // ---- which rollouts ----------------------------------------------------------------------------------------------

  const ORDERS = {
    recorded: (place) => place,
    reward: (place) => data.rollouts.reward[place],
    advantage: (place) => data.rollouts.advantage[place],
    covariance: (place) => data.meanCovariance[place],
    "largest covariance": (place) => data.mostCovariance[place],
    disagreement: (place) => data.rollouts.disagreement[place] ?? NaN,
    entropy: (place) => data.meanEntropy[place],
    length: (place) => data.rollouts.length[place],
  };

  function matching() {
    const bound = (name) => (input(name).value === "" ? null : Number(input(name).value));
    const text = input("text").value.toLowerCase();
    const limits = [
      [bound("reward-from"), (place) => data.rollouts.reward[place]],
      [bound("covariance-from"), (place) => data.mostCovariance[place]],
      [bound("disagreement-from"), (place) => data.rollouts.disagreement[place] ?? -1],
    ].filter(([low]) => low !== null && Number.isFinite(low));
    const most = bound("reward-to");
    const fits = (name, value) => input(name).value === "" || input(name).value === String(value);
    const kept = [];
    for (let place = 0; place < data.count; place += 1) {
      const { run, step, verdict } = data.rollouts;
      if (!fits("run", run[place]) || !fits("step", step[place])) continue;
      if (!fits("verdict", data.strings[verdict[place]])) continue;
      if (limits.some(([low, of]) => !(of(place) >= low))) continue;
      if (most !== null && !(data.rollouts.reward[place] <= most)) continue;
      if (text && !textOf(place).toLowerCase().includes(text)) continue;
      kept.push(place);
    }
    const key = ORDERS[input("order").value];
    const sign = input("descending").checked ? -1 : 1;
    const last = (value) => (Number.isNaN(value) ? -sign * Infinity : value);
    return kept.sort((a, b) => sign * (last(key(a)) - last(key(b))) || a - b);
  }

  function tokenText(token) {
    return shown(data.strings[data.columns.token[token]]);
  }

  function shown(text) {
    return text.replace(/^[Ġ▁]/, " ").replaceAll("Ċ", "↵");
  }

  function textOf(place) {
    const words = [];
    for (let token = data.first[place]; token < data.first[place + 1]; token += 1) words.push(tokenText(token));
    return `${data.strings[data.rollouts.prompt[place]]} ${words.join(data.spaced ? " " : "")}`;
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  function rolloutCard(place, mode) {
    const { run, step, verdict, reward, prompt, answer, disagreement, filtered } = data.rollouts;
    const made = element("article", undefined, "sample");
    const head = element("p", undefined, "sample-head");
    const where = element("a", `step ${step[place]}`);
    where.href = `#run=${run[place]}&step=${step[place]}`;
    const says = element("span", undefined, "verdict");
    says.append(isolated(data.strings[verdict[place]]));
    const whose = element("span");
    whose.append(isolated(subjects[run[place]].label));
    head.append(whose, where, says);
    const facts = [
      ["reward", number(reward[place], 3)],
      ["advantage", number(advantage(place), 3)],
      ["mean entropy", number(data.meanEntropy[place], 3)],
      ["mean covariance", number(data.meanCovariance[place], 3)],
      ["disagreement", number(disagreement[place], 2)],
    ];
    for (const [name, value] of facts) head.append(element("span", `${name} ${value}`));
    if (filtered[place]) head.append(element("span", "group not used for updates"));
    const asked = element("p", undefined, "prompt");
    asked.append(isolated(data.strings[prompt[place]]));
    if (data.strings[answer[place]]) asked.append(" (answer ", isolated(data.strings[answer[place]]), ")");
    const tokens = element("p", undefined, data.spaced ? "tokens spaced" : "tokens");
    tokens.tabIndex = 0;
    tokens.setAttribute("role", "group");
    tokens.setAttribute("aria-label", "Tokens; arrow keys move from token to token");
    tokens.dataset.rollout = String(place);
    addTokens(tokens, place, data.first[place], mode);
    made.append(head, asked, tokens);
    return made;
  }

  function addTokens(line, place, from, mode) {
    const end = Math.min(data.first[place + 1], from + TOKENS_AT_ONCE);
    for (let token = from; token < end; token += 1) {
      const made = element("span", undefined, "token");
      made.append(isolated(tokenText(token)));
      made.dataset.token = String(token);
      const flags = data.columns.flags[token];
      if (flags & SELECTED) made.classList.add("chosen");
      if (flags & CUT) made.classList.add("cut");
      made.style.background = background(mode, token, place);
      line.append(made);
    }
    if (end === data.first[place + 1]) return;
    const more = element("button", `${data.first[place + 1] - end} more tokens`, "quiet");
    more.type = "button";
    more.addEventListener("click", () => {
      more.remove();
      addTokens(line, place, end, MODES[input("mode").value]);
    });
    line.append(more);
  }

  function render() {
    const mode = MODES[input("mode").value];
    found = matching();
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    page = Math.min(page, pages - 1);
    const shownNow = found.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    list.replaceChildren(...shownNow.map((place) => rolloutCard(place, mode)));
    showScale(mode);
    const told = section.querySelector(".page-told");
    told.textContent = found.length
      ? `${page * PER_PAGE + 1} to ${page * PER_PAGE + shownNow.length} of ${found.length} rollouts`
      : "No rollout fits these filters.";
    section.querySelector(".previous").disabled = page === 0;
    section.querySelector(".next").disabled = page >= pages - 1;
    hideCard();
    section.dataset.shown = String(found.length);
  }

  function recolour() {
    const mode = MODES[input("mode").value];
    for (const token of list.querySelectorAll("[data-token]")) {
      const rollout = Number(token.closest("[data-rollout]").dataset.rollout);
      token.style.background = background(mode, Number(token.dataset.token), rollout);
    }
    showScale(mode);
  }

  // ---- one token ---------------------------------------------------------------------------------------------------

  let active = null;

  function hideCard() {
    active?.classList.remove("active");
    active = null;
    card.hidden = true;
  }

  function showCard(span) {
    if (active === span) return;
    hideCard();
    active = span;
    span.classList.add("active");
    const token = Number(span.dataset.token);
    const rollout = Number(span.closest("[data-rollout]").dataset.rollout);
    const both = (before, after) => (Number.isFinite(after) ? `${number(before, 3)} → ${number(after, 3)}` : number(before, 3));
    const flags = data.columns.flags[token];
    const facts = [
      ["probability", both(Math.exp(logp(token)), Math.exp(optional("after_logprobs", token)))],
      ["log-prob, nats", both(logp(token), optional("after_logprobs", token))],
      ["entropy, nats", both(data.columns.entropies[token], optional("after_entropies", token))],
      ["covariance", number(optional("covariances", token), 3)],
      ["polarity", number(MODES.polarity.of(token, rollout), 3)],
      ["advantage", number(advantage(rollout), 3)],
      ["ratio to the sampler", number(Math.exp(logp(token) - optional("old_logprobs", token)), 3)],
    ];
    if (flags & SELECTED) facts.push(["control", "chosen"]);
    if (flags & CUT) facts.push(["ratio clip", "gradient cut"]);
    const title = element("p", undefined, "token-title");
    title.append(isolated(tokenText(token)));
    const told = element("dl");
    for (const [name, value] of facts) told.append(element("dt", name), element("dd", value));
    card.replaceChildren(title, told, ...alternatives(token));
    card.hidden = false;
    const box = span.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, window.innerWidth - card.offsetWidth - 8));
    const below = box.bottom + 6 + card.offsetHeight <= window.innerHeight;
    card.style.left = `${left}px`;
    card.style.top = `${Math.max(8, below ? box.bottom + 6 : box.top - card.offsetHeight - 6)}px`;
  }

  function alternatives(token) {
    const count = data.num_alternatives;
    if (!count) return [];
    const listed = element("ol");
    for (let place = token * count; place < (token + 1) * count; place += 1) {
      const share = data.columns.share[place] / 65535;
      const text = data.strings[data.columns.alternative[place]];
      if (text === "") continue;
      const item = element("li");
      const bar = element("span", undefined, "bar");
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      const name = element("span");
      name.append(isolated(shown(text)));
      item.append(bar, name, element("span", share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`));
      listed.append(item);
    }
    return listed.childElementCount ? [element("p", "Most likely here, before the step", "how"), listed] : [];
  }

  list.addEventListener("pointerover", (event) => {
    const span = event.target.closest("[data-token]");
    if (span) showCard(span);
  });
  list.addEventListener("pointerleave", hideCard);
  list.addEventListener("focusout", hideCard);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideCard();
  });
  list.addEventListener("keydown", (event) => {
    const line = event.target.closest?.("[data-rollout]");
    const forward = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!line || forward === undefined) return;
    event.preventDefault();
    const spans = [...line.querySelectorAll("[data-token]")];
    const now = active && line.contains(active) ? spans.indexOf(active) : -1;
    showCard(spans[Math.max(0, Math.min(spans.length - 1, now + forward))]);
  });

  // ---- the form ----------------------------------------------------------------------------------------------------

  function options(name, values, label) {
    for (const value of values) {
      const option = element("option", label(value));
      option.value = String(value);
      input(name).append(option);
    }
  }

  let ready = null;

  function prepare() {
    ready ??= unpacked().then((whole) => {
      data = whole;
      options("run", [...new Set(data.rollouts.run)], (run) => subjects[run].label);
      options("step", [...new Set(data.rollouts.step)].sort((a, b) => a - b), (step) => `step ${step}`);
      options("verdict", [...new Set(data.rollouts.verdict)].map((place) => data.strings[place]), (text) => text);
      for (const name of ["entropy-after", "entropy-change", "probability-after", "probability-change"]) {
        const known = data.columns[name.startsWith("entropy") ? "after_entropies" : "after_logprobs"];
        input("mode").querySelector(`[value="${name}"]`).disabled = !known;
      }
      form.hidden = false;
      render();
      section.dataset.ready = "true";
      document.dispatchEvent(new CustomEvent("covent:rollouts"));
    });
    return ready;
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "mode") return recolour();
    page = 0;
    render();
  });
  form.addEventListener("reset", () => setTimeout(render));
  section.querySelector(".previous").addEventListener("click", () => ((page -= 1), render()));
  section.querySelector(".next").addEventListener("click", () => ((page += 1), render()));

  document.addEventListener("covent:step", async ({ detail }) => {
    await prepare();
    const note = document.querySelector("#step .step-rollouts");
    const steps = data.rollouts.step.filter((_, place) => data.rollouts.run[place] === detail.run);
    note.replaceChildren();
    if (!steps.length) return;
    const nearest = steps.reduce((best, step) => (Math.abs(step - detail.step) < Math.abs(best - detail.step) ? step : best));
    form.reset();
    input("run").value = String(detail.run);
    input("step").value = String(nearest);
    page = 0;
    render();
    const link = element("a", nearest === detail.step ? "its rollouts" : `rollouts of step ${nearest}, the nearest recorded`);
    link.href = "#rollouts";
    note.append("Below: ", link, ".");
  });

  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    prepare();
  }, { rootMargin: "600px" }).observe(section);
})();
