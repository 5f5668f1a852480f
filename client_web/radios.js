// @ts-check
/**
 * Groups of buttons that act as radios.
 * In: clicks and arrow keys. Out: choices. Remembers: nothing; what is checked stands on the buttons.
 */

/**
 * @param {string} kind
 * @param {string} label
 * @param {string} value
 * @param {() => void} choose
 */
export function radio(kind, label, value, choose) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = kind;
  button.dataset.value = value;
  button.setAttribute("role", "radio");
  button.setAttribute("aria-checked", "false");
  button.tabIndex = -1;
  const text = document.createElement("span");
  text.className = "name";
  text.textContent = label;
  button.append(text);
  button.addEventListener("click", choose);
  return button;
}

/**
 * Checks the radio with a value; the first one is reachable by Tab when none is checked.
 * @param {HTMLElement} group
 * @param {string} value
 */
export function mark(group, value) {
  const radios = /** @type {HTMLElement[]} */ ([...group.children]);
  const chosen = radios.find((r) => r.dataset.value === value);
  for (const r of radios) {
    r.setAttribute("aria-checked", String(r === chosen));
    r.tabIndex = r === (chosen ?? radios[0]) ? 0 : -1;
  }
}

/**
 * Arrow keys move and choose, as in a native group of radios.
 * @param {HTMLElement} group
 */
export function arrows(group) {
  group.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const radios = /** @type {HTMLElement[]} */ ([...group.children]);
    const at = radios.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const next = radios[(at + step + radios.length) % radios.length];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  };
}
