// @ts-check
/**
 * Styles as people choose them: one entry for each family, its intensities behind it.
 * In: the server's list. Out: families in order, names in words. Remembers: nothing.
 */

/** @typedef {"soft" | "medium" | "strong"} Intensity */
/** @typedef {{name: string, title: string, description: string, family: string, intensity: Intensity | null, strength: number, temperature: number, thumbnail: string | null}} Style */
/** @typedef {{name: string, members: Style[]}} Family `members` from the mildest on, one at least */

/** @type {Intensity[]} */
const SCALE = ["soft", "medium", "strong"];
/** The manner that every other one departs from. */
const PLAIN = "neutral";

/**
 * The plain one first, then those with intensities, then those that stand alone, each by the alphabet.
 * @param {Style[]} styles
 * @returns {Family[]}
 */
export function families(styles) {
  /** @type {Map<string, Style[]>} */
  const found = new Map();
  for (const style of styles) found.set(style.family, [...(found.get(style.family) ?? []), style]);
  const all = [...found].map(([name, members]) => ({ name, members: members.sort((a, b) => rank(a) - rank(b)) }));
  return all.sort((a, b) => place(a) - place(b) || words(a.name).localeCompare(words(b.name)));
}

/**
 * The member of that intensity; where there is none, the one in the middle, or the mildest.
 * @param {Family} family
 * @param {Intensity} intensity
 */
export function member(family, intensity) {
  const by = (/** @type {Intensity} */ wanted) => family.members.find((style) => style.intensity === wanted);
  return /** @type {Style} */ (by(intensity) ?? by("medium") ?? family.members[0]);
}

/**
 * A style that the server speaks of and does not list, such as an upload.
 * @param {string} name
 * @returns {Style}
 */
export function unlisted(name) {
  return { name, title: name, description: "", family: name, intensity: null, strength: 1, temperature: 0, thumbnail: null };
}

/** @param {string} name */
export function words(name) {
  const known = name.replace(/^upload-([0-9a-f]{6})[0-9a-f]{26}$/, "uploaded $1");
  const plain = known.replace(/^valid_/, "").replaceAll(/[_-]+/g, " ").trim() || name; // the heads' collection says nothing here
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

/** @param {Style} style */
function rank(style) {
  return SCALE.indexOf(style.intensity ?? "medium");
}

/** @param {Family} family */
function place(family) {
  if (family.name === PLAIN) return 0;
  return family.members.length > 1 ? 1 : 2;
}
