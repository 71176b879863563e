
"use strict";
// Keeps what the page shows of backends and models that of this moment. Without it the page is whole, and of the moment it was made.
// Whatever comes from the service is put in as text, never as elements.
(() => {
  const WATCH = "api/backends/watch";
  const STATES = ["stopped", "starting", "loading", "ready", "busy", "stopping", "failed"];
  const SILENCE_MS = 40000; // the service says something every 15 seconds, if only that it is there
  const FIRST_DELAY_MS = 1000, LONGEST_DELAY_MS = 30000;
  const ASK_MS = 5000; // where the key does not open the watch
  const LONGEST_TEXT = 600;

  const byId = (id) => document.getElementById(id);
  const backends = new Map();
  let key = null; // in no address, no cookie and no storage
  let revision = "";
  let request = null; // of the watch that runs
  let timer = 0, failures = 0, isRefused = false;

  // What is shown

  function readableSize(bytes) {
    let amount = bytes, unit = "B";
    for (const larger of ["KiB", "MiB", "GiB", "TiB"]) {
      if (amount < 1024) break;
      amount /= 1024;
      unit = larger;
    }
    return `${amount.toFixed(unit === "B" || amount >= 100 ? 0 : 1)} ${unit}`;
  }

  function stateOf(backend) {
    return backend && STATES.includes(backend.state) ? backend.state : "stopped";
  }

  function setState(element, state, word) {
    element.className = `state ${state}`;
    element.textContent = word;
  }

  function setFigure(element, text, backend) {
    element.textContent = text ?? (backend.pid === null ? "none" : "not known");
    element.classList.toggle("unknown", text === null);
  }

  function fill(rows, backend) {
    const field = (name) => rows.querySelector(`[data-field=${name}]`);
    rows.dataset.backend = backend.model;
    for (const name of ["model", "backend", "in_flight", "restarts"]) field(name).textContent = backend[name];
    setState(field("state"), stateOf(backend), stateOf(backend));
    setFigure(field("memory"), backend.memory_info && readableSize(backend.memory_info.rss), backend);
    setFigure(field("processor"), backend.cpu_percent === null ? null : `${backend.cpu_percent.toFixed(0)} %`, backend);
    const cause = backend.last_error ?? "";
    field("last_error").textContent = cause.length > LONGEST_TEXT ? `${cause.slice(0, LONGEST_TEXT - 3)}...` : cause;
    field("last_error").closest("tr").hidden = backend.last_error === null;
  }

  function show() {
    const table = byId("backend-table");
    const shown = new Map([...table.tBodies].map((rows) => [rows.dataset.backend, rows]));
    for (const [model, rows] of shown) if (!backends.has(model)) rows.remove();
    let before = table.tHead;
    // By code points, as the service sorts.
    for (const model of [...backends.keys()].sort((a, b) => (a < b ? -1 : 1))) {
      const rows = shown.get(model) ?? byId("backend-rows").content.firstElementChild.cloneNode(true);
      fill(rows, backends.get(model));
      if (before.nextElementSibling !== rows) before.after(rows);
      before = rows;
    }
    table.hidden = backends.size === 0;
    byId("no-backends").hidden = backends.size > 0;
    byId("backend-count").textContent = backends.size;
    showModels(backends);
  }

  // What each model is in, by its name: a backend, or a model of the summary.
  function showModels(known) {
    for (const element of document.querySelectorAll("[data-state-of]")) {
      const state = stateOf(known.get(element.dataset.stateOf));
      setState(element, state, state === "stopped" ? "not loaded" : state);
    }
  }

  function tell(text, isOn) {
    const live = byId("live");
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("on", isOn);
  }

  // What comes from the service

  function take(message) {
    if (message.error) throw new Error(message.error.message);
    if (message.kind !== "changes") backends.clear();
    for (const backend of message.backends) backends.set(backend.model, backend);
    for (const model of message.removed) backends.delete(model);
    revision = message.revision;
    failures = 0;
    show();
    tell("live", true);
  }

  function headers(accept) {
    return key === null ? { Accept: accept } : { Accept: accept, Authorization: `Bearer ${key}` };
  }

  async function follow(own) {
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => own.abort(), SILENCE_MS);
    };
    try {
      heard();
      const query = revision && `?after_revision=${encodeURIComponent(revision)}`;
      const options = { headers: headers("application/x-ndjson"), cache: "no-store", signal: own.signal };
      const answer = await fetch(WATCH + query, options);
      if (!answer.ok) {
        isRefused = answer.status === 401 || answer.status === 403 || answer.status === 404;
        revision = "";
        throw new Error(`HTTP ${answer.status}`);
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard();
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line) take(JSON.parse(line));
      }
    } finally {
      clearTimeout(silence);
      own.abort();
    }
  }

  function pause(milliseconds, signal) {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const give = () => {
        clearTimeout(own);
        reject(signal.reason);
      };
      const own = setTimeout(() => {
        signal.removeEventListener("abort", give);
        resolve();
      }, milliseconds);
      signal.addEventListener("abort", give);
    });
  }

  // A key of the role `user` opens no watch, but the states of models are in what it opens: ask for that again and again.
  async function ask(own) {
    for (;;) {
      const silence = setTimeout(() => own.abort(), SILENCE_MS);
      try {
        const options = { headers: headers("application/json"), cache: "no-store", signal: own.signal };
        const answer = await fetch("./", options);
        if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
        const { ModelsConfig: models } = await answer.json();
        isRefused = !models; // the key is not known any more
        if (isRefused) return;
        showModels(new Map(models.map((model) => [model.name, model])));
      } finally {
        clearTimeout(silence);
      }
      failures = 0;
      tell("live", true);
      await pause(ASK_MS, own.signal);
    }
  }

  async function start() {
    clearTimeout(timer);
    // Each watch holds a connection, of which a browser has six to one service: pages that nobody sees have none.
    if (request !== null || isRefused || document.hidden || !byId("live")) return;
    const own = request = new AbortController();
    try {
      await (byId("backend-table") ? follow(own) : ask(own));
    } catch {
      // Whatever it was: the watch is over.
    }
    if (request !== own) return;
    request = null;
    if (isRefused) {
      tell("not live: the service does not let this page watch", false);
      return;
    }
    if (document.hidden) return;
    tell("not live: connecting again", false);
    const delay = Math.min(FIRST_DELAY_MS * 2 ** failures, LONGEST_DELAY_MS);
    failures += 1;
    timer = setTimeout(start, delay * (0.5 + Math.random() / 2)); // not all pages at the same moment
  }

  function restart() {
    failures = 0;
    start();
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) request?.abort();
    else restart();
  });
  addEventListener("online", restart);

  // A key

  async function unlock(event) {
    event.preventDefault();
    const problem = byId("key-problem");
    problem.textContent = "";
    key = byId("key").value.trim();
    try {
      const answer = await fetch("./", { headers: headers("text/html"), cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!answer.ok || !page.getElementById("models")) {
        key = null;
        problem.textContent = "The service does not know this key.";
        return;
      }
      byId("main").replaceWith(document.adoptNode(page.getElementById("main")));
      start();
    } catch {
      key = null;
      problem.textContent = "The service cannot be reached, or this cannot be a key.";
    }
  }

  const form = byId("key-form");
  if (form) {
    form.hidden = false;
    form.addEventListener("submit", unlock);
  }
  start();
})();
