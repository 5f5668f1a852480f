// @ts-check
/**
 * The controls of who is shown and how they speak: avatars, styles, a blend, strength, temperature.
 * In: the server's lists, its acknowledgements, the person's hands. Out: orders, at most one in 60 ms.
 * Remembers: what is chosen; the order that waits to be sent.
 */

import { arrows, mark, radio } from "./radios.js";
import { element } from "./stage.js";
import { families, member, unlisted, words } from "./styles.js";

const PACE_MS = 60;

/** @typedef {import("./styles.js").Style} Style */
/** @typedef {import("./styles.js").Family} Family */
/** @typedef {{type: "style", name?: string, weights?: Record<string, number>, strength?: number, temperature?: number} | {type: "avatar", name: string}} Order */

export class StylePad {
  /** @param {(order: Order) => void} order */
  constructor(order) {
    this.order = order;
    /** @type {Style[]} */
    this.styles = [];
    /** @type {Family[]} */
    this.families = [];
    this.style = "";
    /** @type {import("./styles.js").Intensity} what the next family is taken in, where it has it */
    this.intensity = "medium";
    this.avatar = "";
    /** @type {Map<string, Order>} */
    this.waiting = new Map();
    this.timer = 0;
    /** @type {HTMLSelectElement} */
    this.other = element("blend-with");
    /** @type {HTMLSelectElement} */
    this.otherIntensity = element("blend-intensity");
    /** @type {HTMLInputElement} */
    this.share = element("blend");
    /** @type {HTMLInputElement} */
    this.strength = element("strength");
    /** @type {HTMLInputElement} */
    this.temperature = element("temperature");
    this.other.addEventListener("change", () => {
      this.#offerOther();
      this.#blend();
    });
    this.otherIntensity.addEventListener("change", () => this.#blend());
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
    this.#list();
    element("avatars").replaceChildren(
      ...avatars.avatars.map(({ name }) => radio("chip", words(name), name, () => this.#chooseAvatar(name))),
    );
    for (const group of ["styles", "intensities", "avatars"]) arrows(element(group));
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
    const [name, more] = Object.keys(event.weights ?? {});
    // at either end of a blend, one of the two is all that the server names
    const blended = this.#blendedWith !== "" && [this.style, this.#blendedWith].includes(name ?? "");
    if (name && !more && !blended) this.#markStyle(name);
    if (event.type === "welcome" && this.#blendedWith) this.#blend();
    if (!held(this.strength)) this.strength.value = String(event.strength);
    if (!held(this.temperature)) this.temperature.value = String(event.temperature);
    this.#label();
  }

  #list() {
    this.families = families(this.styles);
    element("styles").replaceChildren(...this.families.map((family) => this.#familyButton(family)));
    element("intensity").hidden = this.families.every(({ members }) => members.length === 1);
    const chosen = this.other.value;
    const others = this.families.map(({ name }) => new Option(words(name), name));
    this.other.replaceChildren(new Option("nothing", ""), ...others);
    this.other.value = chosen;
  }

  /** @param {Family} family */
  #familyButton(family) {
    const button = radio("style", words(family.name), family.name, () => this.#chooseStyle(member(family, this.intensity)));
    const { description, thumbnail } = member(family, "medium");
    button.title = description;
    if (thumbnail) {
      const image = new Image(64, 64);
      image.src = thumbnail;
      image.alt = "";
      button.prepend(image);
    } else {
      const dot = document.createElement("span");
      dot.className = "mark";
      dot.setAttribute("aria-hidden", "true");
      dot.style.setProperty("--hue", String(hue(family.name)));
      button.prepend(dot);
    }
    return button;
  }

  /** @param {Style} style */
  #chooseStyle(style) {
    this.#markStyle(style.name);
    if (this.#blendedWith) {
      this.#blend();
      return;
    }
    this.strength.value = String(style.strength);
    this.temperature.value = String(style.temperature);
    this.#label();
    this.#say({ type: "style", name: style.name });
  }

  /** The preset that is mixed in, or nothing. */
  get #blendedWith() {
    return this.otherIntensity.value;
  }

  #offerOther() {
    const family = this.families.find(({ name }) => name === this.other.value);
    const members = family?.members ?? [];
    this.otherIntensity.replaceChildren(...members.map(({ name, intensity }) => new Option(words(intensity ?? "medium"), name)));
    this.otherIntensity.hidden = members.length < 2;
    if (family) this.otherIntensity.value = member(family, "medium").name;
  }

  #blend() {
    const other = this.#blendedWith;
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
    if (name && !this.styles.some((style) => style.name === name)) {
      this.styles.push(unlisted(name));
      this.#list();
    }
    this.style = name;
    const style = this.styles.find((known) => known.name === name);
    const family = this.families.find((known) => known.name === style?.family);
    this.intensity = style?.intensity ?? this.intensity;
    mark(element("styles"), family?.name ?? "");
    this.#markIntensity(family, name);
    element("style-hint").textContent = style?.description ?? "";
  }

  /**
   * @param {Family | undefined} family
   * @param {string} name
   */
  #markIntensity(family, name) {
    const group = element("intensities");
    const members = family && family.members.length > 1 ? family.members : [];
    const shown = [...group.children].map((step) => /** @type {HTMLElement} */ (step).dataset.value);
    if (shown.join("\n") !== members.map((style) => style.name).join("\n")) {
      const steps = members.map((style) => radio("step", words(style.intensity ?? "medium"), style.name, () => this.#chooseStyle(style)));
      group.replaceChildren(...steps);
    }
    mark(group, name);
  }

  /** @param {string} name */
  #markAvatar(name) {
    this.avatar = name;
    mark(element("avatars"), name);
  }

  #label() {
    element("strength-value").textContent = Number(this.strength.value).toFixed(2);
    element("temperature-value").textContent = Number(this.temperature.value).toFixed(2);
    element("blend-value").textContent = this.#blendedWith ? `${this.share.value} %` : "";
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

/** @param {HTMLElement} input */
function held(input) {
  return input.matches(":active");
}

/** @param {string} name */
function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) % 360;
  return sum;
}
