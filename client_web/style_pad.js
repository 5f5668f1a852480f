// @ts-check
/**
 * The controls of who is shown and how they speak: avatars, styles, a blend, strength, temperature.
 * In: the server's lists, its acknowledgements, the person's hands. Out: orders, at most one in 60 ms.
 * Remembers: what is chosen; the order that waits to be sent.
 */

import { element } from "./stage.js";

const PACE_MS = 60;

/** @typedef {{name: string, title: string, description: string, strength: number, temperature: number, thumbnail: string | null}} Style */
/** @typedef {{type: "style", name?: string, weights?: Record<string, number>, strength?: number, temperature?: number} | {type: "avatar", name: string}} Order */

export class StylePad {
  /** @param {(order: Order) => void} order */
  constructor(order) {
    this.order = order;
    /** @type {Style[]} */
    this.styles = [];
    this.style = "";
    this.avatar = "";
    /** @type {Map<string, Order>} */
    this.waiting = new Map();
    this.timer = 0;
    /** @type {HTMLSelectElement} */
    this.other = element("blend-with");
    /** @type {HTMLInputElement} */
    this.share = element("blend");
    /** @type {HTMLInputElement} */
    this.strength = element("strength");
    /** @type {HTMLInputElement} */
    this.temperature = element("temperature");
    this.other.addEventListener("change", () => this.#blend());
    this.share.addEventListener("input", () => this.#blend());
    for (const slider of [this.strength, this.temperature]) {
      slider.addEventListener("input", () => {
        this.#label();
        this.#say({ type: "style", [slider.id]: Number(slider.value) });
      });
    }
    this.#label();
  }

  /** What a call begins with. */
  get wish() {
    return {
      avatar: this.avatar || undefined,
      style: this.style || undefined,
      strength: Number(this.strength.value),
      temperature: Number(this.temperature.value),
    };
  }

  /**
   * @param {{default: Record<string, any>, styles: Style[]}} styles
   * @param {{default: string, avatars: {name: string}[]}} avatars
   */
  fill(styles, avatars) {
    this.styles = styles.styles;
    element("styles").replaceChildren(...this.styles.map((style) => this.#styleButton(style)));
    const nothing = new Option("nothing", "");
    this.other.replaceChildren(nothing, ...this.styles.map((style) => new Option(words(style.name), style.name)));
    element("avatars").replaceChildren(
      ...avatars.avatars.map(({ name }) => radio("chip", words(name), name, () => this.#chooseAvatar(name))),
    );
    for (const group of ["styles", "avatars"]) arrows(element(group));
    this.#markStyle(Object.keys(styles.default.weights)[0] ?? "");
    this.strength.value = String(styles.default.strength);
    this.temperature.value = String(styles.default.temperature);
    this.#markAvatar(avatars.default);
    this.#label();
  }

  /**
   * What the server says is in effect.
   * @param {Record<string, any>} event
   */
  acknowledge(event) {
    if (event.type === "avatar") this.#markAvatar(event.name);
    if (this.waiting.size || event.type === "avatar") return;
    const names = Object.keys(event.weights ?? {});
    if (names.length === 1) this.#markStyle(names[0] ?? "");
    if (!held(this.strength)) this.strength.value = String(event.strength);
    if (!held(this.temperature)) this.temperature.value = String(event.temperature);
    this.#label();
  }

  /** @param {Style} style */
  #styleButton(style) {
    const button = radio("style", words(style.name), style.name, () => this.#chooseStyle(style));
    button.title = style.description;
    if (style.thumbnail) {
      const image = new Image(64, 64);
      image.src = style.thumbnail;
      image.alt = "";
      button.prepend(image);
    } else {
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.setAttribute("aria-hidden", "true");
      mark.style.setProperty("--hue", String(hue(style.name)));
      button.prepend(mark);
    }
    return button;
  }

  /** @param {Style} style */
  #chooseStyle(style) {
    this.#markStyle(style.name);
    if (this.other.value) {
      this.#blend();
      return;
    }
    this.strength.value = String(style.strength);
    this.temperature.value = String(style.temperature);
    this.#label();
    this.#say({ type: "style", name: style.name });
  }

  #blend() {
    const other = this.other.value;
    this.share.disabled = !other;
    this.#label();
    const share = Number(this.share.value) / 100;
    if (!this.style) return;
    const weights = other && other !== this.style ? { [this.style]: 1 - share, [other]: share } : { [this.style]: 1 };
    this.#say({ type: "style", weights });
  }

  /** @param {string} name */
  #chooseAvatar(name) {
    this.#markAvatar(name);
    this.#say({ type: "avatar", name });
  }

  /** @param {string} name */
  #markStyle(name) {
    this.style = name;
    mark(element("styles"), name);
  }

  /** @param {string} name */
  #markAvatar(name) {
    this.avatar = name;
    mark(element("avatars"), name);
  }

  #label() {
    element("strength-value").textContent = Number(this.strength.value).toFixed(2);
    element("temperature-value").textContent = Number(this.temperature.value).toFixed(2);
    element("blend-value").textContent = this.other.value ? `${this.share.value} %` : "";
    for (const slider of [this.strength, this.temperature, this.share]) {
      const part = (Number(slider.value) - Number(slider.min)) / (Number(slider.max) - Number(slider.min));
      slider.style.setProperty("--part", `${(part * 100).toFixed(1)}%`);
    }
  }

  /** @param {Order} order */
  #say(order) {
    const earlier = this.waiting.get(order.type);
    const merged = order.type === "style" && "name" in order ? order : { ...earlier, ...order };
    if ("weights" in merged && "name" in merged) delete merged["weights" in order ? "name" : "weights"];
    this.waiting.set(order.type, /** @type {Order} */ (merged));
    if (!this.timer) this.timer = window.setTimeout(() => this.#flush(), PACE_MS);
  }

  #flush() {
    this.timer = 0;
    const orders = [...this.waiting.values()];
    this.waiting.clear();
    for (const order of orders) this.order(order);
  }
}

/**
 * A button that acts as a radio.
 * @param {string} kind
 * @param {string} label
 * @param {string} value
 * @param {() => void} choose
 */
function radio(kind, label, value, choose) {
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
function mark(group, value) {
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
function arrows(group) {
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

/** @param {HTMLElement} input */
function held(input) {
  return input.matches(":active");
}

/** @param {string} name */
function words(name) {
  const plain = name.replace(/^valid_/, "").replaceAll(/[_-]+/g, " ").trim(); // the heads' collection says nothing here
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

/** @param {string} name */
function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) % 360;
  return sum;
}
