import { chown, mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type DockerApi, type ListenAddress, openDockerApi } from '../api/docker/index.ts'
import { createEngineProxy } from '../api/proxy/index.ts'
import { messageOf, UserError, untilAborted } from '../base/index.ts'
import { openRealClock, realRandom } from '../base/real-world.ts'
import { openEngine } from '../engine/index.ts'
import { explainTask, explainWorkload, observeWorkload } from '../orchestrator/index.ts'
import { validateTemplate } from '../runtime/index.ts'
import { lockDataRoot } from '../store/index.ts'
import { isHostStopping } from './host-facts.ts'
import { listenHttp } from './http.ts'
import { openLog } from './log.ts'
import type { Member } from './member.ts'
import { Membership } from './membership.ts'
import { openNodeEngines } from './node-engines.ts'
import type { DaemonOptions } from './options.ts'
import { openTaskForward } from './task-forward.ts'
import { openTaskReach } from './task-reach.ts'
import { version } from './version.ts'

/** Bits of a unix socket's file: owner and group may use it. */
const socketMode = 0o660

/** Runs a daemon until it is asked to end (SIGTERM, SIGINT). Containers, traffic and names go on without it. */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const startedAt = performance.now()
  const clock = openRealClock()
  const log = openLog(options.logLevel)
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort())
  process.on('unhandledRejection', (error) => {
    // A broken invariant stops the control plane instead of spreading; the data plane does not need it.
    log.error('stopping: an error that nobody handled', {
      error: messageOf(error),
      stack: error instanceof Error ? error.stack : '',
    })
    process.exit(1)
  })

  await mkdir(options.dataRoot, { recursive: true, mode: 0o700 })
  await mkdir(options.runDir, { recursive: true, mode: 0o711 })
  // Before anything is read: a second daemon must not touch the first one's state.
  const lock = lockDataRoot(options.dataRoot)
  const engine = openEngine({ address: options.engine })
  const proxy = createEngineProxy({ engineAddress: options.engine, log })
  const reach = await openTaskReach({ engine, proxy, runDir: options.runDir, clock, log })
  const membership = new Membership({ options, engine, reach, clock, random: realRandom, log })
  const requireMember = (): Member => {
    if (membership.member) return membership.member
    throw new UserError('notInCluster', 'This node is not part of a swarm')
  }
  const requireAttachments = () => membership.attachments ?? requireMember().attachments
  const api: DockerApi = openDockerApi({
    control: () => membership.member?.control,
    node: membership,
    logs: {
      logs: (taskId, logOptions, signal) => requireMember().logs.logs(taskId, logOptions, signal),
    },
    proxy: openNodeEngines({
      local: proxy,
      runDir: options.runDir,
      cluster: () => {
        const { member } = membership
        return (
          member && {
            view: member.store.view,
            nodeId: member.identity.nodeId,
            port: member.port.port,
          }
        )
      },
      log,
    }),
    engine,
    forward: openTaskForward({ reach, member: requireMember }),
    attachments: {
      reserve: (wish) => requireAttachments().reserve(wish),
      release: (networkId, containers) => requireAttachments().release(networkId, containers),
    },
    explain: {
      workload(view, id) {
        const workload = view.get('workload', id)
        const slice = workload && observeWorkload(view, workload.id)
        return (
          slice && {
            kind: 'service',
            id,
            name: workload.name,
            ...explainWorkload(slice, clock.nowMs()),
          }
        )
      },
      task(view, id) {
        const task = view.get('task', id)
        const slice = task && observeWorkload(view, task.workloadId)
        return (
          slice && {
            kind: 'task',
            id,
            name: task.name,
            ...explainTask(slice, task.id, clock.nowMs()),
          }
        )
      },
    },
    checkTemplate: (text, kind) => validateTemplate(text, kind),
    examineNetworks: (wish, signal) => requireMember().examineNetworks(wish, signal),
    backup: (passphrase) => requireMember().backup(passphrase),
    clock,
    random: realRandom,
    log,
    skepVersion: version,
  })

  membership.onChanged(() => api.clusterChanged())
  await membership.resume()
  api.clusterChanged()
  for (const host of options.hosts) await listen(api, host, options)
  const http = options.http === '' ? undefined : await listenHttp(options.http, membership)
  log.info('ready', {
    version,
    hosts: options.hosts,
    http: http?.address ?? '',
    state: membership.state().localNodeState,
    startMs: Math.round(performance.now() - startedAt),
  })

  await untilAborted(stop.signal)
  log.info('stopping', {})
  await api.close()
  await http?.close()
  await membership.close((await isHostStopping()) ? 'hostStops' : 'restart')
  await reach.close()
  engine.close()
  lock.release()
  log.info('stopped', {})
}

async function listen(api: DockerApi, host: string, options: DaemonOptions): Promise<void> {
  const address = await listenAddressOf(host, options)
  try {
    await api.listen(address)
  } catch (error) {
    throw new UserError(
      'failedPrecondition',
      `cannot serve the API on ${host}: ${messageOf(error)}`,
      {
        next: 'Is another daemon running there? Choose another address with -H.',
        cause: error,
      },
    )
  }
  if ('path' in address) await giveToGroup(address.path, options.socketGroup)
}

async function listenAddressOf(host: string, options: DaemonOptions): Promise<ListenAddress> {
  const unix = /^unix:\/\/(\/.+)$/.exec(host)
  if (unix?.[1] !== undefined) {
    await mkdir(dirname(unix[1]), { recursive: true, mode: 0o711 })
    return { path: unix[1], mode: socketMode }
  }
  const tcp = /^tcp:\/\/(.+):(\d+)$/.exec(host)
  if (tcp?.[1] === undefined) {
    throw new UserError('invalidInput', `"${host}" is not an address to serve the API on`, {
      next: 'Give -H as unix:///path or tcp://host:port.',
    })
  }
  if (!options.tls) {
    throw new UserError(
      'invalidInput',
      `${host} would let anyone on the network control this host`,
      {
        next: 'Give --tls-ca, --tls-cert and --tls-key: clients then need a certificate of that CA.',
      },
    )
  }
  const [ca, cert, key] = await Promise.all(
    [options.tls.ca, options.tls.cert, options.tls.key].map((path) => readFile(path, 'utf8')),
  )
  return {
    host: tcp[1].replace(/^\[|\]$/g, ''),
    port: Number(tcp[2]),
    tls: { ca: ca ?? '', cert: cert ?? '', key: key ?? '' },
  }
}

/** The socket's group may use the API, as Docker's does. A missing group leaves it to root alone. */
async function giveToGroup(path: string, group: string): Promise<void> {
  if (process.getuid?.() !== 0 || group === '') return
  const groups = await readFile('/etc/group', 'utf8').catch(() => '')
  const line = groups.split('\n').find((entry) => entry.startsWith(`${group}:`))
  const gid = Number(line?.split(':')[2])
  if (Number.isInteger(gid)) await chown(path, 0, gid)
}
