// Updates the figures of the page from server-sent events. Without it, the page shows the state at loading.
"use strict";

const numberFormat = new Intl.NumberFormat("en");
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

function formatDuration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}m ${whole % 60}s` : `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
}

function stageText(job) {
  if (!job.stage || !isActive(job)) return "";
  const [done, parts] = [job.stage_done, job.stage_parts].map((number) => numberFormat.format(number));
  if (job.stage === "assembling") return `assembling ${done} of ${parts} shards`;
  // As the command line says it.
  return job.stage_step ? `${job.stage} ${job.stage_step} (step ${job.stage_done + 1} of ${parts})` : job.stage;
}

const isActive = (job) => ["queued", "running", "completing"].includes(job.state);

function show(card, job) {
  const field = (name) => card.querySelector(`[data-field="${name}"]`);
  const active = isActive(job);
  const set = (name, text) => { const found = field(name); if (found.textContent !== text) found.textContent = text; };
  const badge = field("state");
  if (badge.textContent !== job.state) {
    badge.textContent = job.state;
    badge.className = `badge ${job.state}`;
    document.getElementById("announcement").textContent = `${job.name} is ${job.state}`;
  }
  field("ratio").value = job.progress;
  set("percent", `${Math.round(job.progress * 100)}%`);
  set("stage", stageText(job));
  set("read", numberFormat.format(job.source_documents));
  // What has landed is decided later: rows of it may be dropped.
  set("rows-label", active && ["landing", "deciding"].includes(job.stage) ? "landed" : "kept");
  set("rows", numberFormat.format(job.rows));
  set("rejected", numberFormat.format(sum(job.rejected)));
  set("dead", numberFormat.format(sum(job.dead_letters)));
  const passes = active && !["deciding", "assembling"].includes(job.stage);
  set("rate", passes && job.documents_per_second !== null ? numberFormat.format(Math.round(job.documents_per_second)) : "–");
  set("left", active && job.seconds_left !== null ? formatDuration(job.seconds_left) : "–");
  const message = job.message || job.warning || "";
  set("message", message);
  field("message").hidden = message === "";
  const blocked = active && job.code !== null;
  const retriable = job.state === "failed" || job.state === "cancelled" || blocked;
  const visible = { active, retriable };
  for (const form of card.querySelectorAll("form[data-when]")) {
    form.hidden = !visible[form.dataset.when];
  }
}

function follow(root) {
  const events = new EventSource(root.dataset.events);
  events.addEventListener("progress", (event) => {
    const job = JSON.parse(event.data);
    const card = document.querySelector(`[data-job="${CSS.escape(job.job_id)}"]`);
    const newJobs = document.getElementById("new-jobs");
    if (!card) {
      if (newJobs) newJobs.hidden = false;
      return;
    }
    show(card, job);
    // When a job ends or starts again, samples, files and the attempt change too: load the page again.
    if (root.dataset.active && root.dataset.active !== String(isActive(job))) window.location.reload();
  });
  events.addEventListener("unavailable", () => {
    document.getElementById("announcement").textContent = "The jobs cannot be read at the moment.";
  });
}

for (const root of document.querySelectorAll("[data-events]")) follow(root);
