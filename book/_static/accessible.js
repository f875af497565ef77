// What a reader sees on a button is what a speech program has to call it, and what cannot be
// scrolled by a finger must be reachable by the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("button.search-button-field, button.theme-switch-button")
    .forEach((button) => button.removeAttribute("aria-label"));
});
