// @ts-check
/**
 * The page for OBS: one session's avatar on nothing, and its voice; it comes back by itself for as long as it is open.
 * In: `?session=ID` (`mic`: the one of the server's own microphone; without it, or `latest`: the newest one there is),
 * `?background=%23rrggbb`, `?sound=off`, `?compose=2d`, `#token=…`. Out: the picture. Remembers: the viewer of the moment, how long to wait before the next.
 */

import { painter } from "./compose.js";
import { Viewer, WhepError, ask } from "./whep.js";

const FIRST_MS = 1000;
const LONGEST_MS = 15_000;
/** The server is there, but nobody is on stage yet: asking is cheap, and the first word should not be missed. */
const NOBODY_MS = 2000;
/** A session makes pictures all the time, silent or not: without any for this long it is gone. */
const STALL_MS = 5000;
const CONNECT_MS = 12_000;

const wish = new URLSearchParams(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById("avatar"));
const voice = /** @type {HTMLAudioElement} */ (document.getElementById("voice"));
const video = document.createElement("video");
video.muted = video.playsInline = video.autoplay = true;

const paint = painter(canvas, wish.get("compose") === "2d");
const colour = wish.get("background");
if (colour && /^#[0-9a-f]{6}$/i.test(colour)) document.documentElement.style.background = colour;
document.body.dataset.painter = paint.kind;

const lacking = !("requestVideoFrameCallback" in HTMLVideoElement.prototype);

/** @type {Viewer | null} */
let viewer = null;
let wait = FIRST_MS;
let timer = 0;
/** When the last picture came; before the first one, when waiting for it began, plus what connecting may take. */
let seen = 0;

/** The id to watch; throws `WhepError` 404 when nobody is on stage. */
async function chosen() {
  const named = wish.get("session");
  if (named && named !== "latest" && named !== "mic") return named;
  /** @type {{sessions: {id: string, seconds: number, source: string | null, state: string}[]}} */
  const { sessions } = await (await ask("/v1/sessions", token)).json();
  const [newest] = sessions
    .filter((one) => one.state !== "closing" && (named !== "mic" || one.source === "mic"))
    .sort((one, other) => one.seconds - other.seconds);
  if (!newest) throw new WhepError(404, "there is no session");
  return newest.id;
}

async function connect() {
  timer = 0;
  seen = performance.now() + CONNECT_MS;
  const mine = new Viewer(token, show, () => mine === viewer && again(0));
  viewer = mine;
  try {
    const session = await chosen();
    if (mine === viewer) await mine.watch(session, "packed");
  } catch (error) {
    if (mine === viewer) again(error instanceof WhepError ? error.status : -1);
  }
}

/**
 * Tries once more after a while.
 * @param {number} status what the server said, 0 for nothing
 */
function again(status) {
  if (timer) return;
  document.body.dataset.phase = "waiting";
  viewer?.close();
  viewer = null;
  video.srcObject = voice.srcObject = null;
  const pause = status === 404 ? Math.min(wait, NOBODY_MS) : wait;
  wait = Math.min(wait * 2, LONGEST_MS);
  timer = window.setTimeout(() => void connect(), pause);
}

/** @param {MediaStreamTrack} track */
function show(track) {
  if (track.kind === "audio" && wish.get("sound") === "off") return;
  const media = track.kind === "video" ? video : voice;
  media.srcObject = new MediaStream([track]);
  play();
}

/** A browser other than OBS wants a click before it gives sound. */
function play() {
  for (const media of [video, voice]) if (media.srcObject && media.paused) media.play().catch(() => {});
}

function drawn() {
  if (viewer && video.srcObject) {
    paint.draw(video);
    seen = performance.now();
    wait = FIRST_MS;
    document.body.dataset.phase = "live";
  }
  next();
}

function next() {
  if (!lacking) return video.requestVideoFrameCallback(drawn);
  const before = video.currentTime;
  return requestAnimationFrame(() => (video.currentTime !== before ? drawn() : next()));
}

next();
window.setInterval(() => {
  if (document.hidden) seen = performance.now(); // nothing is drawn then, so no picture is seen to come
  else if (viewer && performance.now() - seen > STALL_MS) again(0);
}, 500);
window.addEventListener("pointerdown", play);
window.addEventListener("pagehide", () => viewer?.close());
window.addEventListener("online", () => {
  wait = FIRST_MS;
});
void connect();
