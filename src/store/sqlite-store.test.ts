import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { type Log, silentLog, UserError } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { describeStoreContract, picture } from './contract.ts'
import { openSqliteStore, readStoredClusterId, type SqliteStoreOptions } from './index.ts'
import { buildCluster, buildConfig, buildValueKey } from './test-objects.ts'

const clock = openRealClock()
const besideThis = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

function newDirectory(): string {
  return mkdtempSync(join(tmpdir(), 'skep-store-'))
}

function open(path: string, options: Partial<SqliteStoreOptions> = {}) {
  return openSqliteStore({
    path,
    keys: [buildValueKey()],
    clock,
    log: silentLog,
    freeze: true,
    ...options,
  })
}

function directoryFor(t: TestContext): string {
  const directory = newDirectory()
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

const create = (id: string, data = '') => ({
  type: 'create' as const,
  object: buildConfig(id, { data }),
})

describeStoreContract(
  'the SQLite store',
  () => {
    const directory = newDirectory()
    return {
      open: () => open(join(directory, 'state.db')),
      remove: async () => rmSync(directory, { recursive: true }),
    }
  },
  { durable: true, histories: 15 },
)

describe('the SQLite store', () => {
  test('a process killed in mid-write loses no acknowledged commit and tears none', async (t) => {
    const path = join(directoryFor(t), 'state.db')
    const acknowledged = new Map<string, number>()
    for (let round = 0; round < 10; round++) {
      const child = spawn(process.execPath, [besideThis('crash-writer.ts'), path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const exited = once(child, 'exit')
      let output = ''
      let lines = 0
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text
        // Killed after a number of commits that differs from round to round, in the middle of the next ones.
        lines += text.split('\n').length - 1
        if (lines > round * 37) child.kill('SIGKILL')
      })
      await exited
      // The last line may be cut.
      for (const line of output.split('\n').slice(0, -1)) {
        const [writer = '', number] = line.split(' ')
        acknowledged.set(writer, Number(number))
      }
      const store = await open(path)
      for (const [writer, number] of acknowledged) {
        const numbers = new Set(
          Array.from({ length: 5 }, (_, i) => store.view.get('config', `${writer}-${i}`)?.data),
        )
        assert.equal(numbers.size, 1, `round ${round}: a commit of writer ${writer} is torn`)
        const [stored] = numbers
        assert.ok(Number(stored) >= number, `round ${round}: writer ${writer} lost a commit`)
      }
      await store.close()
    }
    assert.equal(acknowledged.size, 4, 'every writer was heard')
  })

  test('refuses a second daemon, in this process and in another', async (t) => {
    const path = join(directoryFor(t), 'state.db')
    const store = await open(path)
    const refusal = { code: 'failedPrecondition', message: /another daemon is using/ }
    await assert.rejects(open(path), refusal)
    const child = spawn(process.execPath, [besideThis('crash-writer.ts'), path])
    let complaint = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint += text
    })
    await once(child, 'exit')
    assert.match(complaint, /another daemon is using/)
    await store.commit([create('a')])
    await store.close()
    await (await open(path)).close()
  })

  test('nobody else may read the files', async (t) => {
    const directory = join(directoryFor(t), 'data')
    const store = await open(join(directory, 'state.db'))
    await store.commit([create('a')])
    assert.equal(statSync(directory).mode & 0o777, 0o700)
    for (const name of readdirSync(directory)) {
      assert.equal(statSync(join(directory, name)).mode & 0o777, 0o600, name)
    }
    await store.close()
  })

  test('refuses files it can not use, by reason', async (t) => {
    const directory = directoryFor(t)
    const path = join(directory, 'state.db')
    await (await open(path)).close()
    const newer = new DatabaseSync(path)
    newer.exec('PRAGMA user_version = 99')
    newer.close()
    await assert.rejects(open(path), {
      code: 'failedPrecondition',
      message: /written by a newer version of Skep \(schema 99; this version reads up to 2\)/,
    })
    const other = join(directory, 'other.db')
    const foreign = new DatabaseSync(other)
    foreign.exec('CREATE TABLE t (a)')
    foreign.close()
    await assert.rejects(open(other), { message: /is not a store of Skep's/ })
    const text = join(directory, 'text.db')
    writeFileSync(text, 'hello, this is no database at all'.repeat(100))
    await assert.rejects(open(text), { message: /is not a store of Skep's/ })
    writeFileSync(join(directory, 'file'), '')
    await assert.rejects(open(join(directory, 'file', 'state.db')), { code: 'unavailable' })
  })

  /** Whether any file of the directory holds the text. */
  const isOnDisk = (directory: string, text: string): boolean =>
    readdirSync(directory).some((name) => readFileSync(join(directory, name)).includes(text))

  test('what is stored is nowhere on the disk in plain text', async (t) => {
    const directory = directoryFor(t)
    const path = join(directory, 'state.db')
    const store = await open(path)
    for (let i = 0; i < 20; i++) await store.commit([create(`c${i}`, 'needle '.repeat(200))])
    assert(!isOnDisk(directory, 'needle'), 'while it is open, in its log')
    await store.close()
    assert(!isOnDisk(directory, 'needle'))
    assert(!isOnDisk(directory, 'c19'), 'nor are ids')
    const again = await open(path)
    assert.equal(again.view.get('config', 'c7')?.data, 'needle '.repeat(200))
    await again.close()
  })

  test('says which key is missing, and refuses values that were swapped', async (t) => {
    const path = join(directoryFor(t), 'state.db')
    const store = await open(path)
    await store.commit([create('a', 'of a')])
    await store.commit([create('b', 'of b')])
    await store.close()
    await assert.rejects(open(path, { keys: [buildValueKey('fedcba9876543210')] }), {
      code: 'internal',
      message: /frame 1 is sealed with the data key 0123456789abcdef, which is not at hand/,
      next: /data\.keys/,
    })
    const swapped = new DatabaseSync(path)
    swapped.exec('UPDATE frame SET value = (SELECT value FROM frame WHERE number = 2)')
    swapped.close()
    await assert.rejects(open(path), {
      code: 'internal',
      message: /is damaged \(the value of frame 1 was changed, or belongs to something else\)/,
    })
  })

  test('seals what an earlier version kept in plain text, and overwrites that', async (t) => {
    const directory = directoryFor(t)
    const path = join(directory, 'state.db')
    const store = await open(path)
    const data = 'needle '.repeat(2_000)
    await store.commit(Array.from({ length: 40 }, (_, i) => create(`c${40 - i}`, data)))
    await store.commit([{ type: 'create', object: buildCluster('k') }])
    const clusterText = JSON.stringify(store.view.get('cluster', 'k'))
    const before = picture(store.view)
    const texts = [...store.view.list('config')].map((object) => JSON.stringify(object))
    await store.close()
    const plain = new DatabaseSync(path)
    plain.exec(`DROP TABLE frame; ALTER TABLE store DROP COLUMN cluster; CREATE TABLE object (
      place INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL,
      UNIQUE (kind, id)) STRICT; PRAGMA user_version = 1`)
    const put = plain.prepare(`INSERT INTO object (kind, id, text) VALUES ('config', ?, ?)`)
    for (const text of texts) put.run(/"id":"(c\d+)"/.exec(text)?.[1] ?? '', text)
    plain.prepare(`INSERT INTO object (kind, id, text) VALUES ('cluster', 'k', ?)`).run(clusterText)
    plain.close()
    assert(isOnDisk(directory, 'needle'))
    assert.equal(await readStoredClusterId({ path }), 'k')
    const sealed = await open(path)
    assert.deepEqual(picture(sealed.view), before)
    await sealed.commit([create('after')])
    assert(!isOnDisk(directory, 'needle'))
    const after = picture(sealed.view)
    await sealed.close()
    assert.equal(await readStoredClusterId({ path }), 'k')
    const again = await open(path)
    assert.deepEqual(picture(again.view), after)
    await again.close()
  })

  test('checks the data after an unclean end, and says when it is damaged', async (t) => {
    const path = join(directoryFor(t), 'state.db')
    const store = await open(path)
    await store.commit(Array.from({ length: 500 }, (_, i) => create(`c${i}`, 'x'.repeat(500))))
    await store.close()
    const logged: string[] = []
    const log: Log = { ...silentLog, info: (message) => logged.push(message) }
    await (await open(path, { log })).close()
    assert.deepEqual(logged, [])
    const unclean = new DatabaseSync(path)
    unclean.exec('UPDATE store SET clean = 0')
    unclean.close()
    await (await open(path, { log })).close()
    assert.match(logged.join(), /checked, and sound/)
    const torn = new DatabaseSync(path)
    torn.exec('UPDATE store SET clean = 0')
    const { rootpage } =
      torn.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'frame'").get() ?? {}
    const { page_size: pageSize } = torn.prepare('PRAGMA page_size').get() ?? {}
    torn.close()
    // The first page of the frames reads as zeros, as after a lost write.
    const file = openSync(path, 'r+')
    const bytes = Number(pageSize)
    writeSync(file, Buffer.alloc(bytes), 0, bytes, (Number(rootpage) - 1) * bytes)
    closeSync(file)
    await assert.rejects(open(path), { code: 'internal', message: /is damaged/ })
  })

  test('a full disk refuses commits, loses nothing, and can be opened', async (t) => {
    const directory = newDirectory()
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', directory], { stdio: 'pipe' })
    } catch {
      rmSync(directory, { recursive: true })
      t.skip('mounting a small disk needs root')
      return
    }
    t.after(() => {
      execFileSync('umount', ['--lazy', directory]) // Also when a failure left the store open.
      rmSync(directory, { recursive: true })
    })
    const path = join(directory, 'data', 'state.db')
    const filler = join(directory, 'filler')
    writeFileSync(filler, Buffer.alloc(900_000))
    const store = await open(path)
    let stored = 0
    await assert.rejects(
      async () => {
        for (;;) {
          await store.commit([create(`c${stored}`, 'x'.repeat(20_000))])
          stored += 1
        }
      },
      (error) => {
        assert.ok(error instanceof UserError)
        assert.equal(error.code, 'unavailable')
        assert.match(error.message, /the disk that holds .* is full/)
        assert.match(error.next ?? '', /Free some space/)
        return true
      },
    )
    assert.ok(stored > 5)
    assert.equal(store.view.count('config'), stored)
    const tried = await Promise.allSettled(
      ['a', 'b', 'c'].map((id) => store.commit([create(id, 'x'.repeat(100_000))])),
    )
    assert.ok(tried.every((outcome) => outcome.status === 'rejected'))
    rmSync(filler)
    await store.commit([create('after', 'x'.repeat(20_000))])
    const before = picture(store.view)
    await store.close()
    const free = execFileSync('df', ['--output=avail', '-B1', directory]).toString().split('\n')[1]
    // All but a few pages, which tmpfs and SQLite need to open a file at all.
    writeFileSync(filler, Buffer.alloc(Math.max(0, Number(free) - 16_384)))
    const again = await open(path)
    assert.deepEqual(picture(again.view), before)
    await assert.rejects(again.commit([create('z', 'x'.repeat(100_000))]), { code: 'unavailable' })
    await again.close()
  })

  test('goes on when its thread ends', async (t) => {
    const directory = directoryFor(t)
    const path = join(directory, 'state.db')
    const mark = join(directory, 'fail-once')
    const workerPath = join(directory, 'worker.mjs')
    writeFileSync(
      workerPath,
      `import { parentPort } from 'node:worker_threads'
       import { existsSync, rmSync } from 'node:fs'
       parentPort.on('message', ({ type }) => {
         if (type !== 'persist' || !existsSync(${JSON.stringify(mark)})) return
         rmSync(${JSON.stringify(mark)})
         process.exit(9)
       })
       await import(${JSON.stringify(besideThis('sqlite-worker.ts'))})`,
    )
    const store = await open(path, { workerPath })
    await store.commit([create('a')])
    writeFileSync(mark, '')
    await Promise.all([store.commit([create('b')]), store.commit([create('c')])])
    assert.equal(existsSync(mark), false, 'the thread did end')
    await store.commit([create('d')])
    await store.close()
    const again = await open(path)
    assert.equal(again.view.count('config'), 4)
    await again.close()
  })

  test('works from a bundle that has the worker beside the program', async (t) => {
    const directory = directoryFor(t)
    await build({
      entryPoints: [besideThis('crash-writer.ts'), besideThis('sqlite-worker.ts')],
      outdir: directory,
      outExtension: { '.js': '.mjs' },
      bundle: true,
      splitting: true,
      minify: true,
      platform: 'node',
      format: 'esm',
      logLevel: 'silent',
    })
    const child = spawn(process.execPath, [
      join(directory, 'crash-writer.mjs'),
      join(directory, 'data', 'state.db'),
    ])
    const exited = once(child, 'exit')
    const [output] = await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data')])
    child.kill('SIGKILL')
    await exited
    assert.match(String(output), /^0 1\n/)
  })

  test('the file stays small however often objects change and go', async (t) => {
    const directory = directoryFor(t)
    const path = join(directory, 'state.db')
    const store = await open(path)
    const size = (): number =>
      readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0)
    for (let round = 0; round < 60; round++) {
      const old = [...store.view.list('config')]
      await store.commit([
        ...old.map(({ kind, id, version }) => ({ type: 'delete' as const, kind, id, version })),
        ...Array.from({ length: 100 }, (_, i) => create(`${round}-${i}`, 'x'.repeat(10_000))),
      ])
    }
    // 60 MB went through; 1 MB is there.
    assert.ok(size() < 25_000_000, `${size()} bytes`)
    await store.close()
    assert.ok(size() < 5_000_000, `${size()} bytes once closed`)
  })
})
