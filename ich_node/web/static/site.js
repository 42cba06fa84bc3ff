// What every page does: times as the browser's language writes them, light and dark, and requests of our own pages.
"use strict";

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const ages = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const AGAIN_MS = 3000;
const CHECK_MS = 30000;
const STEPS = [[60, 1, "second"], [3600, 60, "minute"], [86400, 3600, "hour"], [Infinity, 86400, "day"]];

/** Write a number as the browser's language does, with so many digits behind its point. */
function sayNumber(value, digits = 0) {
  return new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

function sayAge(seconds) {
  const [, unit, name] = STEPS.find(([below]) => seconds < below);
  return ages.format(-Math.floor(seconds / unit), name);
}

function sayTimes(root) {
  for (const one of root.querySelectorAll("time[data-moment]")) one.textContent = moments.format(new Date(one.dateTime));
  for (const one of root.querySelectorAll("time[data-clock]")) {
    one.textContent = clock.format(new Date(one.dateTime));
    one.title = moments.format(new Date(one.dateTime));
  }
  for (const one of root.querySelectorAll("time[data-date]")) {
    const day = new Date(one.dateTime + "T00:00:00Z");
    if (!Number.isNaN(day.valueOf())) one.textContent = dates.format(day); // a birth date may name no month or day
  }
  for (const one of root.querySelectorAll("data[data-number]")) {
    one.textContent = sayNumber(Number(one.value), Number(one.dataset.number));
  }
  sayAges(root);
}

function sayAges(root) {
  const now = Date.now() / 1000;
  for (const one of root.querySelectorAll("[data-age]")) one.textContent = sayAge(Math.max(0, now - Number(one.dataset.age)));
}

/** Ask for something as a page of ours; a session that has ended leads to the login. */
async function ask(url, { byItself = false, ...options } = {}) {
  const headers = { "X-Form-Token": document.body.dataset.formToken || "", ...(options.headers || {}) };
  if (byItself) headers["X-By-Itself"] = "1";
  const answer = await fetch(url, { ...options, headers });
  if (answer.status === 401) location.assign("/login");
  return answer;
}

/** Look whether somebody is still logged in: nobody's data stay on the screen of a session that has ended. */
function checkSession() {
  if (document.body.dataset.formToken) ask("/session", { byItself: true }).catch(() => {}); // the node may be away
}

function post(url, value) {
  return ask(url, { method: "POST", body: JSON.stringify(value), headers: { "Content-Type": "application/json" } });
}

/** Listen to what changes; `told` gets each state, `state` says how the line is.
 *
 * A page that nobody sees does not listen: a browser has few connections to a host, and each page would hold one. */
function listen(told, state) {
  let stream = null;
  const stop = () => { stream?.close(); stream = null; };
  const start = () => {
    if (stream || document.hidden) return;
    stream = new EventSource("/live");
    stream.addEventListener("open", () => state("live"));
    stream.addEventListener("change", (event) => { state("live"); told(JSON.parse(event.data)); });
    stream.addEventListener("error", () => {
      state("connecting");
      if (stream?.readyState === EventSource.CLOSED) { stop(); setTimeout(start, AGAIN_MS); } // refused: not tried again by itself
      checkSession();
    });
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  start();
}

window.ich = { ask, post, listen, sayTimes, sayAges, sayNumber };

document.getElementById("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
});
sayTimes(document);
setInterval(() => sayAges(document), 5000);
setInterval(checkSession, CHECK_MS);
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // gone back to: it may be old
