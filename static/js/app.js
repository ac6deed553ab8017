// What HTML and htmx cannot: the theme switch, local times on hover, and keeping quiet when hidden.

const THEMES = ["system", "light", "dark"];
const SIGNS = { system: "◐", light: "○", dark: "●" };

function currentTheme() {
  return document.documentElement.dataset.theme || "system";
}

function showTheme(button) {
  const theme = currentTheme();
  button.textContent = SIGNS[theme];
  button.setAttribute("aria-label", `Colour theme: ${theme}`);
  button.title = `Colour theme: ${theme}`;
  button.hidden = false;
}

function setUpThemeSwitch(button) {
  showTheme(button);
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("tickbird-theme", next);
    } catch {
      // Storage may be forbidden; the choice then lasts for this page.
    }
    showTheme(button);
    document.dispatchEvent(new CustomEvent("tickbird:theme"));
  });
}

// Titles of times in the viewer's zone; the server writes UTC.
const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

function localTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.getAttribute("datetime"));
    if (!Number.isNaN(at.getTime())) time.title = format.format(at);
  }
}

// Notices stay long enough to be read, then make room. A pointer on one keeps it.
let noticeTimer = 0;

function expireNotice() {
  clearTimeout(noticeTimer);
  const notice = document.getElementById("notice");
  if (!notice) return;
  noticeTimer = setTimeout(() => {
    if (notice.matches(":hover")) expireNotice();
    else notice.remove();
  }, 10_000);
}

function isPoll(event) {
  const source = event.detail?.ctx?.sourceEvent ?? event.detail?.ctx?.event;
  return !source || source.type === "every";
}

document.addEventListener("htmx:config:request", (event) => {
  if (document.hidden && event.detail?.ctx?.sourceElement?.id !== "live" && isPoll(event)) {
    event.preventDefault();
  }
});

document.addEventListener("htmx:after:swap", () => {
  localTimes();
  expireNotice();
});

// A first connection that fails is not tried again by the extension: knock once more.
const live = document.getElementById("live");

function offline() {
  const status = document.getElementById("status");
  if (status && status.dataset.state === "live") {
    status.dataset.state = "stale";
    status.textContent = "offline";
    status.title = "The dashboard does not answer; this page shows what it last said.";
  }
}

document.addEventListener("htmx:sse:error", offline);
document.addEventListener("htmx:error", (event) => {
  offline();
  if (live && event.target === live) setTimeout(() => window.htmx?.trigger(live, "load"), 5_000);
});

// After a reconnection everything may have changed.
document.addEventListener("htmx:sse:after:connection", (event) => {
  if (event.detail?.connection?.attempt > 0) window.htmx?.trigger(document.body, "health");
});

for (const button of document.querySelectorAll("[data-theme-switch]")) setUpThemeSwitch(button);
localTimes();
expireNotice();
