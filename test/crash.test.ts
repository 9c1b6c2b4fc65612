import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventually, startDaemon } from './support/daemon.ts'
import { at, listAt, onEngine, textAt, untilRunning } from './support/look.ts'

const rounds = 20

/**
 * The daemon is killed at random moments while objects are written: what was acknowledged is there afterwards, the
 * containers are the same ones, and the published port answered all the time.
 */
test(`kill -9 of the daemon, ${rounds} times under writes`, async () => {
  await using daemon = await startDaemon()
  await daemon.ok(
    ...[
      'service',
      'create',
      '-d',
      '--name',
      'lives',
      '--replicas',
      '2',
      '-p',
      '18931:80',
      'whoami:v1',
    ],
  )
  const before = await untilRunning(daemon, 'lives', 2)
  const startsOf = async () =>
    await Promise.all(
      before.map(({ containerId }) =>
        onEngine('inspect', '-f', '{{.State.StartedAt}} {{.RestartCount}}', containerId),
      ),
    )
  const startedAt = await startsOf()
  /** By a connection of its own. A limit that only a hang reaches. */
  const ask = () =>
    fetch('http://127.0.0.1:18931/', {
      headers: { connection: 'close' },
      signal: AbortSignal.timeout(60_000),
    })
  // The node reports that they run, and then is told to send them connections.
  await eventually('an answer of the port', () =>
    ask().then(
      (answer) => answer.status === 200,
      () => false,
    ),
  )

  const ac = new AbortController()
  const acknowledged = new Map<string, string>()
  const failures: string[] = []
  let asked = 0
  async function write(writer: number): Promise<void> {
    for (let turn = 0; !ac.signal.aborted; turn++) {
      const name = `w${writer}-${turn}`
      const answer = await daemon
        .api('POST', '/configs/create', { Name: name, Data: Buffer.from(name).toString('base64') })
        .catch(() => undefined)
      if (answer?.status === 201) acknowledged.set(name, textAt(answer.body, 'ID'))
      else await new Promise((done) => setTimeout(done, 20))
    }
  }
  async function load(): Promise<void> {
    while (!ac.signal.aborted) {
      asked += 1
      try {
        const answer = await ask()
        await answer.text()
        if (answer.status !== 200) failures.push(`status ${answer.status}`)
      } catch (error) {
        failures.push(String(error instanceof Error ? (error.cause ?? error) : error))
      }
      await new Promise((done) => setTimeout(done, 5))
    }
  }
  const working = [load(), ...[0, 1, 2, 3].map(write)]
  try {
    for (let round = 0; round < rounds; round++) {
      // Each kill has work before it, however fast the machine is.
      const before = { asked, acknowledged: acknowledged.size }
      await eventually('writes and requests', async () => {
        return asked >= before.asked + 25 && acknowledged.size >= before.acknowledged + 5
      })
      await new Promise((done) => setTimeout(done, Math.random() * 700))
      await daemon.kill9()
      await daemon.start()
    }
  } finally {
    ac.abort()
    await Promise.all(working)
  }

  const { body } = await daemon.api('GET', '/configs')
  const stored = new Map(
    listAt(body).map((one) => [textAt(one, 'Spec', 'Name'), textAt(one, 'ID')]),
  )
  const lost = [...acknowledged].filter(([name, id]) => stored.get(name) !== id)
  assert.deepEqual(lost, [])
  assert.deepEqual(failures, [], `of ${asked} requests`)
  const after = await untilRunning(daemon, 'lives', 2)
  assert.deepEqual(
    after.map(({ containerId }) => containerId),
    before.map(({ containerId }) => containerId),
  )
  assert.deepEqual(await startsOf(), startedAt)
  // And it still does what it is told.
  await daemon.ok('service', 'scale', '-d', 'lives=3')
  await untilRunning(daemon, 'lives', 3)
  assert.equal(at((await daemon.api('GET', '/services/lives')).body, 'Spec', 'Name'), 'lives')
})
