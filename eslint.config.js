import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

const CLOCK_RULE =
  "Time and randomness come from base (Clock, SeededRandom), so that a simulation can own them.";

/** Functions whose promises node:test itself waits for. */
const TEST_CALLS = {
  from: "package",
  package: "node:test",
  name: ["test", "it", "suite", "describe", "before", "after"],
};

export default defineConfig(
  { ignores: ["dist/**", "build/**", "node_modules/**", "proto/vectors/v1/**"] },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.base],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "@typescript-eslint/no-floating-promises": ["error", { allowForKnownSafeCalls: [TEST_CALLS] }],
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/await-thenable": "error",
      "@typescript-eslint/return-await": ["error", "in-try-catch"],
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/only-throw-error": "error",
      "@typescript-eslint/no-unnecessary-type-assertion": "error",
      "no-var": "error",
      "prefer-const": "error",
      eqeqeq: "error",
      "max-lines": ["error", 400],
    },
  },
  {
    files: ["src/**/*.ts"],
    ignores: ["src/base/clock.ts"],
    rules: {
      "max-lines-per-function": ["error", { max: 70 }],
      "no-console": "error",
      "no-restricted-globals": [
        "error",
        ...["setTimeout", "setInterval", "setImmediate", "performance"].map((name) => ({
          name,
          message: CLOCK_RULE,
        })),
      ],
      "no-restricted-properties": [
        "error",
        { object: "Date", property: "now", message: CLOCK_RULE },
        { object: "Math", property: "random", message: CLOCK_RULE },
        { object: "process", property: "hrtime", message: CLOCK_RULE },
      ],
      "no-restricted-imports": [
        "error",
        {
          paths: ["timers", "timers/promises", "perf_hooks"].flatMap((name) =>
            [name, `node:${name}`].map((path) => ({ name: path, message: CLOCK_RULE })),
          ),
        },
      ],
      "no-restricted-syntax": [
        "error",
        { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: CLOCK_RULE },
      ],
    },
  },
);
