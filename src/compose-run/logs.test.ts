import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { describe, test } from 'node:test'
import { type LogLine, LogPrinter, mergeLogs, shortName } from './logs.ts'
import { ProgressTree } from './progress.ts'

function gather(): { readonly stream: Writable; readonly text: () => string } {
  let text = ''
  const stream = new Writable({
    write(chunk, _, done) {
      text += String(chunk)
      done()
    },
  })
  return { stream, text: () => text }
}

async function* linesOf(...times: readonly string[]): AsyncGenerator<LogLine> {
  for (const time of times) yield { stream: 'stdout', time, text: time }
}

describe('output of several containers', () => {
  test('is merged by time, each one’s own order kept', async () => {
    const merged = []
    const sources = [
      { name: 'a', lines: linesOf('1', '4', '3') },
      { name: 'b', lines: linesOf('2', '5') },
      { name: 'c', lines: linesOf() },
    ]
    for await (const { name, line } of mergeLogs(sources)) merged.push(`${name}${line.time}`)
    assert.deepEqual(merged, ['a1', 'b2', 'a4', 'a3', 'b5'])
  })

  test('has names of one width before it, and standard error stays apart', async () => {
    const stdout = gather()
    const stderr = gather()
    const out = { stdout: stdout.stream, stderr: stderr.stream }
    const printer = new LogPrinter(out, { colour: false, prefix: true, timestamps: false })
    printer.add('web-1')
    printer.add('database-1')
    await printer.print('web-1', { stream: 'stdout', time: '', text: 'hello' })
    await printer.print('database-1', { stream: 'stderr', time: '', text: 'oh' })
    await printer.note('web-1', 'exited with code 3')
    assert.equal(stdout.text(), 'web-1       | hello\nweb-1 exited with code 3\n')
    assert.equal(stderr.text(), 'database-1  | oh\n')
  })

  test('names lose their project’s name, with both separators', () => {
    assert.equal(shortName('shop', 'shop-web-1'), 'web-1')
    assert.equal(shortName('shop', 'shop_web_1'), 'web_1')
    assert.equal(shortName('shop', 'other'), 'other')
  })
})

describe('the tree of steps', () => {
  test('counts what is done, fits the screen, and keeps what goes on', () => {
    const tree = new ProgressTree()
    for (let number = 1; number <= 9; number++) {
      tree.put({ id: `Container web-${number}`, text: 'Starting', state: 'working' }, 0)
    }
    tree.put({ id: 'Container web-1', text: 'Started', state: 'done' }, 1500)
    const lines = tree.draw(2000, 40, 5, false)
    assert.equal(lines.length, 5)
    assert.equal(lines[0], '[+] Running 1/9')
    assert.ok(lines.every((line) => line.length <= 40))
    const whole = tree.draw(2000, 60, 20, false)
    assert.match(whole[1] ?? '', /✔ Container web-1 {2}Started +1\.5s$/)
  })

  test('shows layers below the image that is pulled', () => {
    const tree = new ProgressTree()
    tree.put({ id: 'Image a', text: 'Pulling', state: 'working' }, 0)
    tree.put({ id: '0123', parent: 'Image a', text: 'Downloading 4%', state: 'working' }, 0)
    assert.match(tree.draw(0, 60, 20, false)[2] ?? '', /0123 +Downloading 4%/)
  })
})
