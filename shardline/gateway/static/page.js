// Keeps the figures of the page up to date; without it the page shows how things stood when it was loaded.
"use strict";

const numbers = new Intl.NumberFormat("en");
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

function spent(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}m ${whole % 60}s` : `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
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
    document.getElementById("said").textContent = `${job.name} is ${job.state}`;
  }
  field("ratio").value = job.progress;
  set("percent", `${Math.round(job.progress * 100)}%`);
  set("read", numbers.format(job.source_documents));
  set("rows", numbers.format(job.rows));
  set("rejected", numbers.format(sum(job.rejected)));
  set("dead", numbers.format(sum(job.dead_letters)));
  set("rate", active && job.documents_per_second !== null ? numbers.format(Math.round(job.documents_per_second)) : "–");
  set("left", active && job.seconds_left !== null ? spent(job.seconds_left) : "–");
  const message = job.message || job.warning || "";
  set("message", message);
  field("message").hidden = message === "";
  const retriable = job.state === "failed" || job.state === "cancelled";
  const shown = { active, retriable };
  for (const form of card.querySelectorAll("form[data-when]")) {
    form.hidden = !shown[form.dataset.when];
  }
}

function follow(root) {
  const events = new EventSource(root.dataset.events);
  events.addEventListener("progress", (event) => {
    const job = JSON.parse(event.data);
    const card = document.querySelector(`[data-job="${CSS.escape(job.job_id)}"]`);
    const newer = document.getElementById("newer");
    if (!card) {
      if (newer) newer.hidden = false;
      return;
    }
    show(card, job);
    // At an end and at a new beginning more changes than figures: samples, files, the attempt.
    if (root.dataset.active && root.dataset.active !== String(isActive(job))) window.location.reload();
  });
  events.addEventListener("unavailable", () => {
    document.getElementById("said").textContent = "The jobs cannot be read at the moment.";
  });
}

for (const root of document.querySelectorAll("[data-events]")) follow(root);
