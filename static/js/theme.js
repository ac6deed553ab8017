// Applies the chosen colour theme before the first paint. A classic script: modules come too late.
(() => {
  try {
    const theme = localStorage.getItem("tickbird-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; the system's preference then holds.
  }
})();
