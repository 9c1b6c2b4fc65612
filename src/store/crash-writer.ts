import { silentLog } from '../base/index.ts'
import { openRealClock } from '../base/real-world.ts'
import { openSqliteStore } from './index.ts'
import { buildConfig, buildValueKey } from './test-objects.ts'

/**
 * The process that the crash test kills: several writers, each of which keeps a group of objects at one number and
 * counts it up. Says `<writer> <number>` on standard output for every commit acknowledged.
 */
const [path, writers = '4', objects = '5'] = process.argv.slice(2)
if (path === undefined) throw new Error('usage: crash-writer PATH [WRITERS [OBJECTS]]')
const store = await openSqliteStore({
  path,
  keys: [buildValueKey()],
  clock: openRealClock(),
  log: silentLog,
})

async function write(writer: number): Promise<never> {
  for (;;) {
    const number = Number(store.view.get('config', `${writer}-0`)?.data ?? 0) + 1
    await store.commit(
      Array.from({ length: Number(objects) }, (_, i) => {
        const id = `${writer}-${i}`
        const known = store.view.get('config', id)
        const data = String(number)
        return known
          ? { type: 'update' as const, object: { ...known, data } }
          : { type: 'create' as const, object: buildConfig(id, { data }) }
      }),
    )
    process.stdout.write(`${writer} ${number}\n`)
  }
}
await Promise.all(Array.from({ length: Number(writers) }, (_, writer) => write(writer)))
