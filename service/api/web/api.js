// The HTTP interface, as this page uses it. Paths are relative, so that a prefix in front works.

const KEY = "aqcf-key";

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.code = body.code || "http_error";
    this.receipt = body.receipt || [];
  }
}

let askForKey = null;
export const onKeyNeeded = (ask) => { askForKey = ask; };

const headers = (extra = {}) => {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...extra, Authorization: `Bearer ${key}` } : extra;
};

const renewKey = async () => {
  sessionStorage.removeItem(KEY);
  sessionStorage.setItem(KEY, await askForKey());
};

const problemOf = async (response) => {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body);
};

export const relative = (link) => link.replace(/^\//, "");

export async function call(path, options = {}) {
  const response = await fetch(relative(path), { ...options, headers: headers(options.headers) });
  if (response.status === 401 && askForKey) {
    await renewKey();
    return call(path, options);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

export const json = async (path, options) => (await call(path, options)).json();

export const listJobs = (cursor) =>
  json(`v1/segmentations?limit=25${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
export const cancelJob = (job) => json(job.links.cancel, { method: "POST" });
export const deleteJob = (job) => call(job.links.self, { method: "DELETE" });

// fetch tells nothing of an upload's progress, XMLHttpRequest does.
export function upload(files, query, onProgress) {
  const form = new FormData();
  // File names often hold a patient's name: the server gets a number instead.
  files.forEach((file, index) => form.append("files", file, String(index)));
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `v1/segmentations?${new URLSearchParams(query)}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const body = request.response || {};
      if (request.status < 300) resolve(body);
      else reject(new Problem(request.status, body));
    };
    request.onerror = () => reject(new Problem(0, { detail: "The connection broke during the upload." }));
    request.send(form);
  });
}

// Server-sent events over fetch: EventSource cannot carry a key.
export async function follow(path, onEvent, signal) {
  const response = await call(path, { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    blocks.map(parseEvent).filter(Boolean).forEach(onEvent);
  }
}

function parseEvent(block) {
  const lines = block.split("\n").filter((line) => line.startsWith("data:"));
  return lines.length ? JSON.parse(lines.map((line) => line.slice(5)).join("\n")) : null;
}

export async function download(path, name) {
  const url = URL.createObjectURL(await (await call(path)).blob());
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
