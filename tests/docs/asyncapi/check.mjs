// Prints what AsyncAPI's parser finds wrong with the file that is named, one fault a line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [packages, file] = process.argv.slice(2);
const { Parser } = createRequire(`${packages}/`)("@asyncapi/parser");
const { diagnostics } = await new Parser().parse(readFileSync(file, "utf-8"));
for (const { severity, path, message } of diagnostics) {
  // 0 is an error, 1 a warning; what comes after is advice.
  if (severity <= 1) console.log(`${path.join(".")}: ${message}`);
}
