// Reads a custom resource as JSON, and fails naming what does not fit its schema.
// Usage: node validate.mjs FOLDER_OF_THE_PACKAGES < resource.json
import {readFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const folders = {
  "keda.sh/v1alpha1": "keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "prometheus-operator/monitoring.coreos.com/v1",
};
const resource = JSON.parse(readFileSync(0, "utf8"));
const path = `${process.argv[2]}/node_modules/@kubernetes-models/${folders[resource.apiVersion]}/index.js`;
const models = await import(pathToFileURL(path));
// One package is of ECMAScript modules, the other of CommonJS.
const Model = models[resource.kind] ?? models.default[resource.kind];
new Model(resource).validate();
