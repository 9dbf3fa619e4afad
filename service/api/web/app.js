// The page: send images, follow jobs, look at a result.

import { cancelJob, deleteJob, download, follow, json, listJobs, onKeyNeeded, upload } from "./api.js";
import { $, el, number, plain, table, when } from "./dom.js";
import { Viewer } from "./viewer.js";

const OUTCOMES = {
  lesion_found: ["Lesion found", "warn"],
  no_lesion: ["No lesion found", "good"],
  not_evaluable: ["Not evaluable", "warn"],
};
const STATES = { queued: "live", running: "live", failed: "bad", cancelled: "" };
const STAGES = {
  read: "Reading the images", prepare: "Preparing the volume", wait: "Waiting for the device",
  inference: "Segmenting",
  restore: "Back to the original grid", postprocess: "Cleaning up", measure: "Measuring",
  seg: "Writing the DICOM-SEG", sr: "Writing the report", store: "Storing",
};
const FILES = [
  ["seg", "DICOM-SEG", "seg.dcm"], ["sr", "DICOM SR", "sr.dcm"], ["mask", "Mask (NIfTI)", "mask.nii.gz"],
  ["image", "Image (NIfTI)", "image.nii.gz"], ["measurements", "Measurements (JSON)", "measurements.json"],
  ["preview", "Preview (PNG)", "preview.png"],
];

const state = { jobs: new Map(), models: [], files: [], selected: null, next: null, viewer: null, stop: null };

// ---------------------------------------------------------------- jobs

const chip = (job) => {
  const [text, kind] = job.status === "succeeded" ? OUTCOMES[job.outcome] : [plain(job.status), STATES[job.status]];
  return el("span", { class: `chip ${kind}` }, text);
};

const title = (job) => `${job.modality.toUpperCase()} · ${job.id.slice(0, 8)}`;

function showJobs() {
  const jobs = [...state.jobs.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  $("jobs").replaceChildren(...jobs.map(jobRow));
  $("no-jobs").hidden = jobs.length > 0;
  $("more").hidden = !state.next;
}

const jobRow = (job) => el("li", {}, el("button", {
  type: "button", "data-job": job.id, "aria-current": job.id === state.selected ? "true" : null,
  onclick: () => select(job.id, true),
}, el("span", { class: "name" }, title(job)), chip(job),
el("small", {}, `${when(job.created_at)} · ${job.model.id} · ${job.profile}`)));

async function loadJobs(cursor) {
  const page = await listJobs(cursor);
  for (const job of page.items) state.jobs.set(job.id, job);
  state.next = page.next;
  showJobs();
}

async function refresh() {
  try {
    const page = await listJobs();
    for (const job of page.items) state.jobs.set(job.id, job);
    showJobs();
  } catch { /* the readiness line says that the service is away */ }
}

// ---------------------------------------------------------------- one job

async function select(id, focus) {
  if (id !== state.selected) closeResult();
  state.selected = id;
  history.replaceState(null, "", `#${id}`);
  showJobs();
  try {
    const job = await json(`v1/segmentations/${encodeURIComponent(id)}`);
    if (state.selected !== id) return;
    state.jobs.set(id, job);
    showJobs();
    await showResult(job);
    if (focus) $("detail").focus({ preventScroll: true });
    if (["succeeded", "failed", "cancelled"].includes(job.status)) refresh();
    else watch(job);
  } catch (problem) {
    forget(id, problem);
  }
}

function forget(id, problem) {
  if (state.selected !== id) return;
  closeResult();
  state.selected = null;
  history.replaceState(null, "", location.pathname);
  if (problem?.status === 404) state.jobs.delete(id);
  else if (problem) showProblem(problem);
  showJobs();
}

function closeResult() {
  state.stop?.abort();
  state.viewer?.close();
  state.stop = state.viewer = null;
  $("result").hidden = true;
  $("result").replaceChildren();
  $("welcome").hidden = false;
}

async function watch(job) {
  state.stop?.abort();
  const stop = (state.stop = new AbortController());
  try {
    await follow(job.links.events, (event) => advance({ ...job, ...event }), stop.signal);
  } catch { /* below: read again, whatever ended the stream */ }
  if (stop.signal.aborted) return;
  setTimeout(() => { if (state.selected === job.id && !stop.signal.aborted) select(job.id); }, 300);
}

function advance(job) {
  if (job.id !== state.selected || !job.status) return;
  state.jobs.set(job.id, job);
  showJobs();
  const old = $("progress");
  if (old) old.replaceWith(progressOf(job));
}

const progressOf = (job) => {
  const stage = job.status === "queued" ? "Waiting for its turn" : STAGES[job.stage] || "Working";
  const known = job.status === "running" && job.progress > 0;
  return el("div", { class: "running", id: "progress" },
    el("progress", { max: "1", value: known ? String(job.progress) : null, "aria-label": "Progress of this stage" }),
    el("p", { role: "status" }, known ? `${stage} – ${Math.round(100 * job.progress)} %` : `${stage}…`));
};

async function showResult(job) {
  const children = [head(job), meta(job)];
  if (job.status === "queued" || job.status === "running") children.push(progressOf(job));
  if (job.error) children.push(el("p", { class: "notice bad" }, sentence(job.error.detail), " ", el("code", {}, job.error.code)));
  if (job.outcome === "not_evaluable") children.push(el("p", { class: "notice warn" },
    "No liver, or too little of it, lies in the images. This is neither a positive nor a negative finding."));
  if (job.outcome) children.push(await findings(job));
  if (job.receipt.length) children.push(...receipt(job.receipt));
  if (job.outcome) children.push(how(job));
  if (state.selected !== job.id) return;
  $("welcome").hidden = true;
  $("result").replaceChildren(...children);
  $("result").hidden = false;
}

const head = (job) => el("div", { class: "head" },
  el("h2", {}, title(job)), chip(job),
  el("div", { class: "actions" },
    ["queued", "running"].includes(job.status)
      ? el("button", { type: "button", id: "cancel", onclick: () => act(cancelJob, job) }, "Cancel") : null,
    el("button", { type: "button", class: "danger", id: "delete", onclick: () => remove(job) }, "Delete")));

const meta = (job) => {
  const total = Object.values(job.seconds).reduce((sum, value) => sum + value, 0);
  const parts = [when(job.created_at), `model ${job.model.id}`, `profile ${job.profile}`];
  if (job.engine) parts.push(job.engine);
  if (total) parts.push(`${number(total)} s`);
  return el("p", { class: "meta" }, parts.join(" · "));
};

async function act(action, job) {
  try {
    await action(job);
  } catch (problem) {
    if (problem.status !== 409) showProblem(problem);
  }
  await select(job.id);
}

async function remove(job) {
  if (!confirm("Delete this segmentation, its results and its images?")) return;
  try {
    await deleteJob(job);
  } catch (problem) {
    if (problem.status !== 404) return showProblem(problem);
  }
  state.jobs.delete(job.id);
  forget(job.id);
}

async function findings(job) {
  const side = el("div", {}, ...numbers(job), ...downloads(job));
  if (!job.links.slices) return side;
  try {
    const viewer = await Viewer.open(job);
    state.viewer?.close();
    state.viewer = viewer;
    return el("div", { class: "split" }, viewer.root, side);
  } catch (problem) {
    side.prepend(el("p", { class: "notice warn" }, sentence(problem.message)));
    return side;
  }
}

function numbers(job) {
  const m = job.measurements;
  if (!m || job.outcome === "not_evaluable") return [];
  const figure = (name, value, unit) => el("div", {}, el("dt", {}, name), el("dd", {}, value, " ", el("small", {}, unit)));
  const result = [el("h3", {}, "Measurements"), el("dl", { class: "figures" },
    figure("Liver, with tumour", number(m.liver_ml, 0), "ml"), figure("Tumour", number(m.tumour_ml), "ml"),
    figure("Burden", number(m.tumour_burden_percent), "%"), figure("Lesions", String(m.lesions.length), ""))];
  return m.lesions.length ? [...result, el("h3", {}, "Lesions"), el("div", { class: "lesions" }, lesions(m))] : result;
}

const lesions = (m) => table([
  { title: "#", cell: (row) => String(row.number) },
  { title: "Volume, ml", num: true, cell: (row) => number(row.volume_ml, 2) },
  { title: "Long axis, mm", num: true, cell: (row) => number(row.long_axis_mm) },
  { title: m.intensity_unit === "HU" ? "Mean, HU" : "Mean", num: true, cell: (row) => number(row.intensity_mean, 0) },
  { title: "", cell: (row) => el("button", { type: "button", class: "show", onclick: () => jump(row.number),
    "aria-label": `Show lesion ${row.number}` }, "Show") },
], m.lesions);

function jump(lesion) {
  const place = state.viewer?.layout.lesions.find((found) => found.number === lesion);
  if (place) state.viewer.jump(place);
}

const downloads = (job) => [el("h3", {}, "Downloads"), el("div", { class: "downloads" },
  FILES.filter(([key]) => job.links[key]).map(([key, text, name]) => el("a", {
    class: "button", href: job.links[key].replace(/^\//, ""), download: `${job.id.slice(0, 8)}-${name}`,
    onclick: (event) => { event.preventDefault(); fetchFile(job.links[key], `${job.id.slice(0, 8)}-${name}`); },
  }, text)))];

const fetchFile = (link, name) => download(link, name).catch(showProblem);

const receipt = (lines) => [el("h3", {}, "Series that were looked at"), receiptTable(lines)];

const receiptTable = (lines) => table([
  { title: "Series", cell: (row) => row.description || row.key || "–" },
  { title: "Images", num: true, cell: (row) => (row.images == null ? "–" : String(row.images)) },
  { title: "Size", cell: (row) => (row.rows ? `${row.columns} × ${row.rows}` : "–") },
  { title: "Spacing, mm", cell: (row) => (row.spacing_mm ? [...row.spacing_mm].reverse().map((mm) => number(mm, 2)).join(" × ") : "–") },
  { title: "Use", cell: (row) => el("span", { class: `chip ${{ chosen: "good", rejected: "bad" }[row.status] || ""}` }, plain(row.status)) },
  { title: "Why", cell: (row) => [row.reason, ...(row.notes || [])].filter(Boolean).map(sentence).join(" ") },
], lines.map((line) => ({ ...line, class: line.status === "set_aside" ? "set-aside" : null })));

const how = (job) => el("details", {}, el("summary", {}, "How it was made"),
  el("p", { class: "meta" }, `Model ${job.model.id}, manifest ${job.model.sha256.slice(0, 16)}…`),
  ...[...job.applied, ...job.notes].map((note) => el("p", { class: "meta" }, sentence(note))),
  table([{ title: "Stage", cell: (row) => plain(row[0]) }, { title: "Seconds", num: true, cell: (row) => number(row[1], 2) }],
    Object.entries(job.seconds)));

const sentence = (text) => {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
};

// ---------------------------------------------------------------- sending

function pick(files) {
  state.files = files;
  $("send").disabled = files.length === 0;
  const size = files.reduce((sum, file) => sum + file.size, 0) / 1024 ** 2;
  $("picked").hidden = files.length === 0;
  $("picked").textContent = `${files.length} ${files.length === 1 ? "file" : "files"}, ${number(size)} MB`;
  $("problem").replaceChildren();
}

async function dropped(event) {
  event.preventDefault();
  $("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return pick([...event.dataTransfer.files]);
  pick((await Promise.all(entries.map(filesBelow))).flat());
}

async function filesBelow(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) break;
    found.push(...batch);
  }
  return (await Promise.all(found.map(filesBelow))).flat();
}

async function send(event) {
  event.preventDefault();
  if (!state.files.length) return;
  const query = { modality: $("form").elements.modality.value };
  if ($("model").value) query.model = $("model").value;
  if ($("profile").value) query.profile = $("profile").value;
  $("send").disabled = true;
  $("problem").replaceChildren();
  sending(0);
  try {
    const job = await upload(state.files, query, sending);
    $("files").value = "";
    pick([]);
    state.jobs.set(job.id, job);
    await select(job.id, true);
  } catch (problem) {
    showProblem(problem);
  } finally {
    $("upload").hidden = true;
    $("send").disabled = state.files.length === 0;
  }
}

function sending(fraction) {
  $("upload").hidden = false;
  $("upload-bar").value = fraction;
  $("upload-text").textContent = fraction < 1 ? `Sending – ${Math.round(100 * fraction)} %` : "Looking at the images…";
}

function showProblem(problem) {
  const notice = el("div", { class: "notice bad" }, sentence(problem.message), " ", el("code", {}, problem.code));
  if (problem.receipt?.length) notice.append(el("div", { class: "scroll" }, shortReceipt(problem.receipt)));
  $("problem").replaceChildren(notice);
}

const shortReceipt = (lines) => table([
  { title: "Series", cell: (row) => row.description || row.key || "–" },
  { title: "Images", num: true, cell: (row) => (row.images == null ? "–" : String(row.images)) },
  { title: "Why", cell: (row) => sentence(row.reason || plain(row.status)) },
], lines);

// ---------------------------------------------------------------- models, readiness, start

function showModels() {
  const modality = $("form").elements.modality.value;
  const fitting = state.models.filter((model) => model.modalities.includes(modality));
  $("model").replaceChildren(...fitting.map((model) => el("option", { value: model.id }, model.id)));
  showProfiles();
}

function showProfiles() {
  const model = state.models.find((found) => found.id === $("model").value);
  $("profile").replaceChildren(...(model ? model.profiles : []).map((profile) =>
    el("option", { value: profile.name, selected: profile.name === model.default_profile }, plain(profile.name))));
}

async function checkReady() {
  let text = "The service does not answer", ok = false;
  try {
    const answer = await (await fetch("readyz")).json();
    ok = answer.status === "ready";
    const missing = Object.entries(answer.checks).filter(([, works]) => !works).map(([name]) => name);
    text = ok ? "Ready" : `Not ready: ${missing.join(", ")}`;
  } catch { /* the text says so */ }
  $("ready").className = `ready ${ok ? "yes" : "no"}`;
  if ($("ready").textContent !== text) $("ready").textContent = text;
}

const askForKey = () => new Promise((resolve) => {
  const dialog = $("key-dialog");
  if (!dialog.open) dialog.showModal();
  dialog.addEventListener("close", () => { resolve($("key").value.trim()); $("key").value = ""; }, { once: true });
});

function wire() {
  onKeyNeeded(askForKey);
  $("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
  $("form").addEventListener("submit", send);
  $("form").addEventListener("change", (event) => {
    if (event.target.name === "modality") showModels();
    else if (event.target.id === "model") showProfiles();
    else if (event.target.id === "files") pick([...event.target.files]);
  });
  for (const kind of ["dragenter", "dragover"])
    $("drop").addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  $("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
  $("drop").addEventListener("drop", dropped);
  for (const kind of ["dragover", "drop"]) // a file that misses the box must not replace the page
    document.addEventListener(kind, (event) => event.preventDefault());
  $("more").addEventListener("click", () => loadJobs(state.next).catch(showProblem));
}

async function start() {
  wire();
  checkReady();
  setInterval(checkReady, 10_000);
  try {
    state.models = (await json("v1/models")).items;
    showModels();
    await loadJobs();
    setInterval(refresh, 5_000);
    const wanted = location.hash.slice(1);
    if (wanted) await select(wanted);
  } catch (problem) {
    showProblem(problem);
  }
}

start();
