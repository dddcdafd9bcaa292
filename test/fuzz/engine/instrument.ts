import ts from "typescript";

/** A source with counters put in. */
export interface Instrumented {
  code: string;
  blocks: number;
}

const BRANCHES: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);

/** Texts longer than this are sentences for people, which no input needs to contain. */
const MAX_WORD_CHARACTERS = 24;

/**
 * Puts a counter into every function, branch and loop of a module in JavaScript. No line is added, so that stack traces keep their lines.
 * @param path names the source to whoever collects the counters.
 */
export function instrument(source: string, path: string): Instrumented {
  const file = ts.createSourceFile("source.js", source, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS);
  const writer = new CounterWriter(source);
  writer.visit(file);
  const header = `const __c=globalThis.__rametFuzz(${JSON.stringify(path)},${writer.blocks},${JSON.stringify([...writer.words])});`;
  return { code: header + writer.finish(), blocks: writer.blocks };
}

/** Collects insertions in the order in which they nest: what opens before what is inside, what closes after it. */
class CounterWriter {
  blocks = 0;
  readonly words = new Set<string>();
  readonly #source: string;
  readonly #insertions: { at: number; text: string }[] = [];

  constructor(source: string) {
    this.#source = source;
  }

  visit(node: ts.Node): void {
    this.#noteWord(node);
    if (ts.isFunctionLike(node)) return this.#visitFunction(node);
    if (ts.isIfStatement(node)) return this.#visitIf(node);
    if (ts.isIterationStatement(node, false)) {
      const { statement } = node;
      return ts.forEachChild(node, (child) =>
        child === statement ? this.#statement(statement) : this.visit(child),
      );
    }
    if (ts.isConditionalExpression(node)) {
      this.visit(node.condition);
      this.#expression(node.whenTrue);
      return this.#expression(node.whenFalse);
    }
    if (ts.isBinaryExpression(node) && BRANCHES.has(node.operatorToken.kind)) {
      this.visit(node.left);
      return this.#expression(node.right);
    }
    if (ts.isCaseOrDefaultClause(node)) {
      const first = node.statements[0];
      if (ts.isCaseClause(node)) this.visit(node.expression);
      if (first !== undefined) this.#insert(first.getStart(), `${this.#count()};`);
      return node.statements.forEach((statement) => this.visit(statement));
    }
    if (ts.isCatchClause(node)) return this.#statement(node.block);
    ts.forEachChild(node, (child) => this.visit(child));
  }

  /** The source with everything inserted. */
  finish(): string {
    // Sorting is stable: what was inserted at one place keeps its order.
    const ordered = this.#insertions.toSorted((left, right) => left.at - right.at);
    let code = "";
    let done = 0;
    for (const { at, text } of ordered) {
      code += this.#source.slice(done, at) + text;
      done = at;
    }
    return code + this.#source.slice(done);
  }

  #visitFunction(node: ts.SignatureDeclaration): void {
    const body = "body" in node ? node.body : undefined;
    ts.forEachChild(node, (child) => {
      if (child !== body) this.visit(child);
      else if (ts.isBlock(child)) this.#statement(child);
      else this.#expression(child);
    });
  }

  #visitIf(node: ts.IfStatement): void {
    this.visit(node.expression);
    this.#statement(node.thenStatement);
    if (node.elseStatement !== undefined) this.#statement(node.elseStatement);
    else this.#insert(node.end, ` else{${this.#count()}}`);
  }

  #statement(node: ts.Statement): void {
    if (ts.isBlock(node)) {
      this.#insert(node.getStart() + 1, `${this.#count()};`);
      return ts.forEachChild(node, (child) => this.visit(child));
    }
    this.#insert(node.getStart(), `{${this.#count()};`);
    this.visit(node);
    this.#insert(node.end, "}");
  }

  #expression(node: ts.Node): void {
    this.#insert(node.getStart(), `(${this.#count()},`);
    this.visit(node);
    this.#insert(node.end, ")");
  }

  #count(): string {
    return `__c[${this.blocks++}]++`;
  }

  #insert(at: number, text: string): void {
    this.#insertions.push({ at, text });
  }

  #noteWord(node: ts.Node): void {
    if (
      !ts.isStringLiteral(node) &&
      !ts.isPropertyAssignment(node) &&
      !ts.isShorthandPropertyAssignment(node)
    )
      return;
    const text = ts.isStringLiteral(node) ? node.text : node.name.getText().replace(/^["']|["']$/g, "");
    if (text.length > 0 && text.length <= MAX_WORD_CHARACTERS && !/[ \n]|^\.{0,2}\//.test(text))
      this.words.add(text);
  }
}
