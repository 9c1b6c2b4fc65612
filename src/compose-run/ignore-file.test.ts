import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIgnoreFile } from './ignore-file.ts'

describe('.dockerignore', () => {
  const cases: readonly (readonly [file: string, path: string, ignored: boolean])[] = [
    ['node_modules', 'node_modules', true],
    ['node_modules', 'node_modules/a/b.js', true],
    ['node_modules', 'src/node_modules', false],
    ['**/node_modules', 'src/node_modules/x', true],
    ['**/node_modules', 'node_modules', true],
    ['*.log', 'a.log', true],
    ['*.log', 'logs/a.log', false],
    ['/build/', 'build/x', true],
    ['# *.log\n\n*.tmp\r\n', 'a.tmp', true],
    ['# *.log', 'a.log', false],
    ['docs\n!docs/README.md', 'docs/README.md', false],
    ['docs\n!docs/README.md', 'docs/other.md', true],
    ['*\n!src', 'src/main.ts', false],
    ['*\n!src', 'package.json', true],
    ['a?c', 'abc', true],
    ['a[0-9]', 'a7', true],
    ['a[0-9]', 'ab', false],
    ['a.b', 'aXb', false],
    ['.git', '.git/config', true],
  ]
  for (const [file, path, ignored] of cases) {
    test(`${JSON.stringify(file)} ${ignored ? 'leaves out' : 'keeps'} ${path}`, () =>
      assert.equal(parseIgnoreFile(file).ignores(path), ignored))
  }

  test('a folder that a later rule brings something back from is looked into', () => {
    assert.equal(parseIgnoreFile('docs').ignoresAllIn('docs'), true)
    assert.equal(parseIgnoreFile('docs\n!docs/README.md').ignoresAllIn('docs'), false)
  })
})
