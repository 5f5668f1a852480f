// What the latency benchmark runs in the page: one call, the loudness of the microphone and the mouth of the picture,
// both stamped with performance.now(). Chromium only (MediaStreamTrackProcessor sees the sound before the encoder).
async ({ seconds, side, box }) => {
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const [track] = microphone.getAudioTracks();
  const sound = [];
  let open = true;
  const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
  const listen = async () => {
    while (open) {
      const { value, done } = await reader.read();
      if (done) return;
      const at = performance.now();
      const samples = new Float32Array(value.numberOfFrames);
      value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      sound.push([at, Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length)]);
      value.close();
    }
  };
  listen();

  const connection = new RTCPeerConnection({ iceServers: [] });
  let street = 0;
  connection.createDataChannel("control").onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "welcome") street = event.street_latency_ms;
  };
  connection.addTransceiver(track, { direction: "sendrecv", streams: [microphone] });
  connection.addTransceiver("video", { direction: "recvonly" });
  const video = document.createElement("video");
  video.muted = video.autoplay = video.playsInline = true;
  document.body.append(video);
  connection.ontrack = (event) => {
    if (event.track.kind === "video") video.srcObject = new MediaStream([event.track]);
  };
  await connection.setLocalDescription(await connection.createOffer());
  const gathered = new Promise((resolve) => {
    connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && resolve();
    setTimeout(resolve, 3000);
  });
  await gathered;
  const answer = await fetch("/v1/call", {
    method: "POST",
    headers: { "Content-Type": "application/sdp" },
    body: connection.localDescription.sdp,
  });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`the server answered ${answer.status}: ${text}`);
  await connection.setRemoteDescription({ type: "answer", sdp: text });

  const canvas = new OffscreenCanvas(side, side);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const pictures = [];
  const look = () => {
    const at = performance.now();
    pen.drawImage(video, 0, 0, side, side);
    const { data } = pen.getImageData(box.left, box.top, box.width, box.height);
    const grey = [];
    for (let i = 0; i < data.length; i += 4) grey.push((2 * data[i] + 5 * data[i + 1] + data[i + 2]) >> 3);
    pictures.push([at, grey]);
    if (open) video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  open = false;
  connection.close();
  await fetch(answer.headers.get("Location"), { method: "DELETE" });
  microphone.getTracks().forEach((t) => t.stop());
  return { sound, pictures, street_ms: street };
};
