// Lints the JavaScript of the console: `node lint.mjs ESLINT FOLDER`, with the linter of ESLint as one file. It prints a
// line for each fault. Besides ESLint's rules, each import has to be exported where it is said, and each export used.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [eslint, folder] = process.argv.slice(2);
const { Linter } = await import(pathToFileURL(resolve(eslint)).href);

// What the page uses of the browser: anything else is a mistake, or has to be stated here.
const GLOBALS = [
  "AbortController", "Blob", "FormData", "IntersectionObserver", "Intl", "ResizeObserver", "TextDecoderStream", "URL", "URLSearchParams", "addEventListener",
  "atob", "clearTimeout", "console", "document", "fetch", "getComputedStyle", "history", "innerWidth", "localStorage", "location", "navigator",
  "requestAnimationFrame", "cancelAnimationFrame", "performance", "matchMedia", "queueMicrotask", "clearInterval", "removeEventListener",
  "scrollTo", "sessionStorage", "setInterval", "setTimeout", "window",
];
// Text that becomes markup or code: the policy of the page refuses it too, and this says so before anybody opens it.
const MARKUP = ["innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySetInnerHTML", "srcdoc"];

const ON = [
  "array-callback-return", "block-scoped-var", "consistent-return", "constructor-super", "default-case-last", "default-param-last",
  "dot-notation", "eqeqeq", "for-direction", "getter-return", "grouped-accessor-pairs", "guard-for-in", "no-alert", "no-array-constructor",
  "no-async-promise-executor", "no-bitwise", "no-caller", "no-case-declarations", "no-class-assign", "no-compare-neg-zero",
  "no-cond-assign", "no-const-assign", "no-constant-binary-expression", "no-constant-condition", "no-constructor-return",
  "no-debugger", "no-delete-var", "no-dupe-args", "no-dupe-class-members", "no-dupe-else-if", "no-dupe-keys", "no-duplicate-case",
  "no-duplicate-imports", "no-else-return", "no-empty", "no-empty-character-class", "no-empty-pattern", "no-empty-static-block",
  "no-eval", "no-ex-assign", "no-extend-native", "no-extra-bind", "no-extra-boolean-cast", "no-fallthrough", "no-func-assign",
  "no-global-assign", "no-implied-eval", "no-import-assign", "no-inner-declarations", "no-invalid-regexp", "no-irregular-whitespace",
  "no-iterator", "no-label-var", "no-labels", "no-lone-blocks", "no-lonely-if", "no-loop-func", "no-loss-of-precision",
  "no-misleading-character-class", "no-multi-assign", "no-new", "no-new-func", "no-new-native-nonconstructor", "no-new-wrappers",
  "no-nonoctal-decimal-escape", "no-obj-calls", "no-octal", "no-octal-escape", "no-param-reassign", "no-promise-executor-return",
  "no-proto", "no-prototype-builtins", "no-redeclare", "no-regex-spaces", "no-return-assign", "no-script-url", "no-self-assign",
  "no-self-compare", "no-sequences", "no-setter-return", "no-shadow", "no-shadow-restricted-names", "no-sparse-arrays",
  "no-template-curly-in-string", "no-this-before-super", "no-throw-literal", "no-unassigned-vars", "no-undef", "no-undef-init",
  "no-unexpected-multiline", "no-unmodified-loop-condition", "no-unneeded-ternary", "no-unreachable", "no-unreachable-loop",
  "no-unsafe-finally", "no-unsafe-negation", "no-unsafe-optional-chaining", "no-unused-labels", "no-unused-private-class-members",
  "no-unused-vars", "no-useless-assignment", "no-useless-backreference", "no-useless-call", "no-useless-catch",
  "no-useless-computed-key", "no-useless-concat", "no-useless-constructor", "no-useless-escape", "no-useless-rename",
  "no-useless-return", "no-var", "no-void", "no-with", "object-shorthand", "operator-assignment", "prefer-arrow-callback",
  "prefer-const", "prefer-numeric-literals", "prefer-object-has-own", "prefer-object-spread", "prefer-promise-reject-errors",
  "prefer-regex-literals", "prefer-rest-params", "prefer-spread", "prefer-template", "preserve-caught-error", "radix", "require-yield",
  "symbol-description", "use-isnan", "valid-typeof", "yoda",
];
const RULES = {
  ...Object.fromEntries(ON.map((name) => [name, "error"])),
  complexity: ["error", 25],
  "no-console": ["error", { allow: ["error"] }],
  // An assignment in parentheses is meant: `() => (signal.value = 1)`.
  "no-return-assign": ["error", "except-parens"],
  "no-unused-expressions": ["error", { allowShortCircuit: true }],
  "no-unused-vars": ["error", { args: "all", argsIgnorePattern: "^_$", caughtErrors: "all", ignoreRestSiblings: true }],
  "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
  "no-restricted-properties": ["error", ...MARKUP.map((property) => ({ property })), { object: "document", property: "write" }],
  "no-restricted-syntax": ["error", ...MARKUP.map((name) => ({ selector: `TemplateElement[value.raw=/${name}/]`, message: `${name} makes markup of a text.` }))],
};

const files = readdirSync(folder, { recursive: true }).filter((each) => each.endsWith(".js") && !each.startsWith("vendor/")).sort();
const config = {
  languageOptions: { ecmaVersion: "latest", sourceType: "module", globals: Object.fromEntries(GLOBALS.map((each) => [each, "readonly"])) },
  linterOptions: { reportUnusedDisableDirectives: "error" },
  rules: RULES,
};
const linter = new Linter({ configType: "flat" });
const faults = [];
const exported = new Map(); // file -> names
const imported = new Map(); // file -> names

for (const file of files) {
  const text = readFileSync(join(folder, file), "utf8");
  for (const { line, column, ruleId, message } of linter.verify(text, [config], { filename: file })) faults.push(`${file}:${line}:${column}: ${ruleId ?? "syntax"}: ${message}`);
  exported.set(file, names(text));
}
for (const file of files) {
  const text = readFileSync(join(folder, file), "utf8");
  for (const [, list, from] of text.matchAll(/^import (?:\{([^}]*)\} from )?"(\.[^"]+)";/gm)) {
    const target = relative(folder, resolve(folder, dirname(file), from));
    if (target.startsWith("vendor/")) continue;
    const there = exported.get(target);
    if (!there) faults.push(`${file}: imports ${from}, which is not there`);
    for (const name of (list ?? "").split(",").map((each) => each.trim().split(" ")[0]).filter(Boolean)) {
      if (there && !there.has(name)) faults.push(`${file}: imports ${name}, which ${target} does not export`);
      imported.set(target, (imported.get(target) ?? new Set()).add(name));
    }
  }
}
for (const [file, there] of exported) for (const name of there) if (!imported.get(file)?.has(name)) faults.push(`${file}: exports ${name}, which nobody imports`);

function names(text) {
  const own = [...text.matchAll(/^export (?:async )?(?:function\*?|class|const|let) (\w+)/gm)].map(([, name]) => name);
  const lists = [...text.matchAll(/^export \{([^}]*)\}/gm)].flatMap(([, list]) => list.split(",").map((each) => each.trim()));
  return new Set([...own, ...lists]);
}

for (const fault of faults) console.log(fault);
if (!files.length) console.log(`there is no JavaScript in ${folder}`);
process.exitCode = faults.length || !files.length ? 1 : 0;
