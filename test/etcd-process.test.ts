import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { get } from 'node:https'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { silentLog, UserError } from '../src/base/index.ts'
import { openRealClock, realRandom } from '../src/base/real-world.ts'
import { startEtcd, waitForEtcd } from '../src/etcd/etcd-process.ts'
import type { Config } from '../src/model/index.ts'
import { type EtcdStore, openEtcdStore } from '../src/store/etcd/etcd-store.ts'
import { buildConfig, buildValueKey } from '../src/store/test-objects.ts'
import { sealedValues } from '../src/store/value-codec.ts'
import { eventually } from './support/daemon.ts'
import { etcdIsMissing, RealCluster } from './support/etcd-cluster.ts'

const clock = openRealClock()
const values = sealedValues([buildValueKey()])

async function startCluster(t: TestContext, size: number): Promise<RealCluster> {
  const cluster = await RealCluster.start(size)
  t.after(() => cluster.stop())
  return cluster
}

test('without etcd it is said what to install', async () => {
  const options = {
    binary: '/nonexistent/etcd',
    directory: '/nonexistent',
    name: 'n',
    peerListenUrl: '',
    peerUrl: '',
    files: { certificatePath: '', keyPath: '', rootsPath: '', requiredName: '' },
    begin: { type: 'restart' },
    clock,
    log: silentLog,
  } as const
  await assert.rejects(startEtcd(options), { code: 'unsupported', next: /etcd-server/ })
})

const skip = etcdIsMissing

describe('a real etcd as a child', { skip, concurrency: 1 }, () => {
  test('is closed to others, comes back after it was killed, and ends when told', async (t) => {
    const cluster = await startCluster(t, 1)
    const [member] = cluster.members
    assert.ok(member)
    assert.equal((await stat(member.directory)).mode & 0o777, 0o700)
    const client = cluster.client()
    await client.txn({ when: [], apply: [{ type: 'put', key: 'a', value: '1' }] })
    await waitForEtcd({ process: member.process, client, clock })
    const { pid } = member.process
    assert.ok(pid)
    process.kill(pid, 'SIGKILL')
    const { kvs } = await client.range({ key: 'a' }, { deadlineMs: 120_000 })
    while (member.process.pid === pid) await clock.sleep(20)
    assert.equal(kvs[0]?.value, '1')
    const again = (await client.range({ key: 'a' }, { deadlineMs: 120_000 })).kvs
    assert.equal(again[0]?.value, '1')
    assert.equal(member.process.restartCount, 1)
    await member.process.stop()
    assert.equal(member.process.pid, undefined)
  })

  test('that can not start says why', async (t) => {
    const cluster = await startCluster(t, 1)
    const [member] = cluster.members
    assert.ok(member)
    await member.process.stop()
    const blocker = createServer().listen(Number(new URL(member.peerUrl).port), '127.0.0.1')
    t.after(() => blocker.close())
    await once(blocker, 'listening')
    await cluster.restart(0, { type: 'restart' })
    const says = (line: string) => /address already in use/.test(line)
    await eventually('it says why', async () => member.process.lastWords.some(says))
    const waiting = { process: member.process, client: cluster.client(), clock, waitMs: 1_500 }
    await assert.rejects(waitForEtcd(waiting), {
      code: 'unavailable',
      message: /address already in use/,
    })
  })

  test('of an earlier daemon is ended before another one starts', async (t) => {
    const cluster = await startCluster(t, 1)
    const [member] = cluster.members
    assert.ok(member)
    await cluster.client().txn({ when: [], apply: [{ type: 'put', key: 'a', value: '1' }] })
    await member.process.stop()
    // What a killed daemon leaves where the kernel does not end its child: the process, and the file that names it.
    const data = ['--name=m0', '--data-dir=data', '--listen-client-urls=unix://client:1']
    const leftover = spawn(
      'etcd',
      [...data, '--advertise-client-urls=unix://client:1', '--listen-peer-urls=http://127.0.0.1:0'],
      { cwd: member.directory, stdio: 'ignore' },
    )
    t.after(() => leftover.kill('SIGKILL'))
    const ended = new Promise((resolve) => leftover.on('exit', resolve))
    const text = await readFile(`/proc/${leftover.pid}/stat`, 'utf8')
    const started = text.slice(text.lastIndexOf(')') + 2).split(' ')[19]
    await writeFile(join(member.directory, 'pid'), `${leftover.pid} ${started}`)
    await cluster.restart(0, { type: 'restart' })
    await ended
    const { kvs } = await cluster.client().range({ key: 'a' }, { deadlineMs: 120_000 })
    assert.equal(kvs[0]?.value, '1')
  })

  test('of three lets only managers in; one alone can be made a cluster again', async (t) => {
    const cluster = await startCluster(t, 3)
    const ask = async (role: 'manager' | 'worker'): Promise<number | undefined> => {
      const { certificatePem, keyPem } = await cluster.credentials(role, role)
      return new Promise((resolve, reject) => {
        get(
          `${cluster.members[0]?.peerUrl}/members`,
          { ca: cluster.root.certificatePem, cert: certificatePem, key: keyPem, agent: false },
          (response) => {
            response.resume()
            resolve(response.statusCode)
          },
        ).on('error', reject)
      })
    }
    assert.equal(await ask('manager'), 200)
    await assert.rejects(ask('worker'))

    const client = cluster.client(0)
    const store = await openEtcdStore({ client, values, clock, random: realRandom, log: silentLog })
    t.after(() => store.close())
    // Larger than what etcd takes by itself.
    const data = 'ü'.repeat(1_900_000)
    await create(store, [buildConfig('a', { data })])
    await create(
      store,
      Array.from({ length: 2_000 }, (_, i) => buildConfig(`n${i}`)),
    )
    await store.close()
    await Promise.all(cluster.members.map((member) => member.process.stop()))
    await assert.rejects(cluster.restart(0, { type: 'new', token: 'other' }, '/nonexistent'), {
      code: 'unsupported',
    })
    await cluster.restart(0, { type: 'forceNew' })
    const alone = cluster.client(0, { alone: true })
    await alone.range({ key: 'a' }, { deadlineMs: 120_000 })
    assert.equal((await alone.memberList()).length, 1)
    const kept = await openEtcdStore({
      client: alone,
      values,
      clock,
      random: realRandom,
      log: silentLog,
    })
    t.after(() => kept.close())
    assert.equal(kept.view.count('config'), 2_001)
    assert.equal(kept.view.get('config', 'a')?.data, data)
    await kept.close()
  })
})

/** Creates objects in one commit. Where members are too busy to answer in time, it is looked for, and asked for again. */
async function create(store: EtcdStore, objects: readonly Config[]): Promise<void> {
  const changes = objects.map((object) => ({ type: 'create', object }) as const)
  await eventually('the commit', async () => {
    try {
      await store.commit(changes)
      return true
    } catch (error) {
      if (!(error instanceof UserError && error.code === 'unavailable')) throw error
    }
    await store.barrier().catch(() => {})
    return objects.every(({ id }) => store.view.get('config', id) !== undefined)
  })
}
