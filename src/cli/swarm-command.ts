import type { Command } from 'commander'
import { UserError } from '../base/index.ts'
import type { ApiInfo, ApiNode, ApiSwarm } from './api.ts'
import { openClient } from './client.ts'
import { type CliContext, checked, collect, newCommand, usageError } from './command.ts'
import { readSecret } from './secret-input.ts'
import { count, oneOf } from './service-spec.ts'

interface InitFlags {
  readonly advertiseAddr?: string
  readonly listenAddr?: string
  readonly dataPathAddr?: string
  readonly dataPathPort?: string
  readonly defaultAddrPool?: readonly string[]
  readonly defaultAddrPoolMaskLength: string
  readonly autolock?: boolean
  readonly availability: string
  readonly forceNewCluster?: boolean
}

/** `skep swarm`. */
export function buildCommand(context: CliContext): Command {
  const { io } = context
  const swarm = newCommand('swarm', 'The cluster: begin, leave, let others join')

  swarm
    .command('init')
    .description('Begin a cluster with this node as its manager')
    .option('--advertise-addr <address>', 'What other nodes reach this one by')
    .option('--listen-addr <address>', "Cluster port (default: the daemon's)")
    .option('--data-path-addr <address>', 'Address of traffic between services')
    .option('--data-path-port <port>', 'UDP port of traffic between services')
    .option(
      '--default-addr-pool <subnet>',
      'Where subnets are taken from (may be repeated)',
      collect,
    )
    .option('--default-addr-pool-mask-length <bits>', 'Size of a subnet', '24')
    .option('--autolock', 'Encrypt the state with a key that people hold')
    .option('--availability <availability>', 'active, pause or drain', 'active')
    .option('--force-new-cluster', 'Begin again from the state that is here')
    .action(async (flags: InitFlags) => {
      const body = checked(() => ({
        ListenAddr: flags.listenAddr ?? '',
        AdvertiseAddr: flags.advertiseAddr ?? '',
        DataPathAddr: flags.dataPathAddr ?? '',
        DataPathPort: count('--data-path-port', flags.dataPathPort ?? '0'),
        ForceNewCluster: flags.forceNewCluster ?? false,
        AutoLockManagers: flags.autolock ?? false,
        Availability: oneOf('--availability', flags.availability, ['active', 'pause', 'drain']),
        DefaultAddrPool: flags.defaultAddrPool ?? [],
        SubnetSize: count('--default-addr-pool-mask-length', flags.defaultAddrPoolMaskLength),
        Spec: {
          Labels: {},
          ...(flags.autolock && { EncryptionConfig: { AutoLockManagers: true } }),
        },
      }))
      const client = await openClient(context)
      const nodeId = await client.call<string>('/swarm/init', { method: 'POST', body })
      io.stdout.write(`Swarm initialized: current node (${nodeId}) is now a manager.\n\n`)
      io.stdout.write(await joinText(client, 'worker', nodeId))
      if (flags.autolock) {
        const { UnlockKey } = await client.call<{ UnlockKey: string }>('/swarm/unlockkey')
        io.stdout.write(`\nKeep this key; a restarted manager asks for it:\n\n    ${UnlockKey}\n`)
      }
    })

  swarm
    .command('join')
    .argument('<host:port>', 'A manager')
    .description('Join a cluster')
    .requiredOption('--token <token>', "The cluster's join token")
    .option('--advertise-addr <address>', 'What other nodes reach this one by')
    .option('--listen-addr <address>', "Cluster port (default: the daemon's)")
    .option('--data-path-addr <address>', 'Address of traffic between services')
    .option('--availability <availability>', 'active, pause or drain', 'active')
    .action(
      async (
        remote: string,
        flags: {
          token: string
          advertiseAddr?: string
          listenAddr?: string
          dataPathAddr?: string
          availability: string
        },
      ) => {
        const client = await openClient(context)
        await client.call('/swarm/join', {
          method: 'POST',
          body: {
            ListenAddr: flags.listenAddr ?? '',
            AdvertiseAddr: flags.advertiseAddr ?? '',
            DataPathAddr: flags.dataPathAddr ?? '',
            RemoteAddrs: [remote],
            JoinToken: flags.token,
            Availability: checked(() =>
              oneOf('--availability', flags.availability, ['active', 'pause', 'drain']),
            ),
          },
        })
        const info = await client.call<ApiInfo>('/info')
        const role = info.Swarm?.ControlAvailable ? 'manager' : 'worker'
        io.stdout.write(`This node joined a swarm as a ${role}.\n`)
      },
    )

  swarm
    .command('leave')
    .description('Leave the cluster')
    .option('-f, --force', 'Even if it ends the cluster')
    .action(async (flags: { force?: boolean }) => {
      const client = await openClient(context)
      await client.call('/swarm/leave', {
        method: 'POST',
        query: { ...(flags.force && { force: 1 }) },
      })
      io.stdout.write('Node left the swarm.\n')
    })

  swarm
    .command('join-token')
    .argument('<role>', 'worker or manager')
    .description('Show how other nodes join')
    .option('--rotate', 'Make a new token; the old one lets nobody in any more')
    .option('-q, --quiet', 'Only the token')
    .action(async (role: string, flags: { rotate?: boolean; quiet?: boolean }) => {
      if (role !== 'worker' && role !== 'manager') {
        throw usageError(`"${role}" is no role. Choose worker or manager.`)
      }
      const client = await openClient(context)
      if (flags.rotate) {
        const { Spec, Version } = await client.call<ApiSwarm>('/swarm')
        await client.call('/swarm/update', {
          method: 'POST',
          query: {
            version: Version.Index,
            rotateWorkerToken: role === 'worker',
            rotateManagerToken: role === 'manager',
          },
          body: Spec,
        })
      }
      if (flags.quiet) {
        const { JoinTokens } = await client.call<ApiSwarm>('/swarm')
        io.stdout.write(`${role === 'worker' ? JoinTokens.Worker : JoinTokens.Manager}\n`)
        return
      }
      const { Swarm } = await client.call<ApiInfo>('/info')
      if (flags.rotate) io.stdout.write(`Successfully rotated ${role} join token.\n\n`)
      io.stdout.write(await joinText(client, role, Swarm?.NodeID ?? ''))
    })

  swarm
    .command('unlock')
    .description('Unlock a manager that was restarted: asks for the key, or reads it from a pipe')
    .action(async () => {
      const client = await openClient(context)
      const { Swarm = {} } = await client.call<ApiInfo>('/info')
      if (Swarm.LocalNodeState !== 'locked') {
        throw new UserError(
          'failedPrecondition',
          Swarm.LocalNodeState === 'active'
            ? 'the swarm is not locked'
            : 'this node is not part of a swarm',
        )
      }
      const key = await readSecret(io, 'Unlock key: ')
      await client.call('/swarm/unlock', { method: 'POST', body: { UnlockKey: key } })
    })

  swarm
    .command('unlock-key')
    .description('Show the key that unlocks restarted managers')
    .option('--rotate', 'Make a new one; managers ask for the new one from now on')
    .option('-q, --quiet', 'Only the key')
    .action(async (flags: { rotate?: boolean; quiet?: boolean }) => {
      const client = await openClient(context)
      if (flags.rotate) {
        const { Spec, Version } = await client.call<ApiSwarm>('/swarm')
        await client.call('/swarm/update', {
          method: 'POST',
          query: { version: Version.Index, rotateManagerUnlockKey: true },
          body: Spec,
        })
      }
      const { UnlockKey } = await client.call<{ UnlockKey: string }>('/swarm/unlockkey')
      if (UnlockKey === '') {
        throw new UserError('failedPrecondition', 'no unlock key is set', {
          next: 'Switch autolock on with `skep swarm update --autolock`.',
        })
      }
      if (flags.quiet) io.stdout.write(`${UnlockKey}\n`)
      else {
        if (flags.rotate) io.stdout.write('Successfully rotated manager unlock key.\n\n')
        io.stdout.write(unlockText(UnlockKey))
      }
    })

  swarm
    .command('update')
    .description('Change the cluster')
    .option('--autolock', 'Encrypt the keys of managers with a key that people hold')
    .option('--no-autolock', 'No longer')
    .action(async ({ autolock }: { autolock?: boolean }) => {
      if (autolock === undefined) throw usageError('Say --autolock or --no-autolock.')
      const client = await openClient(context)
      const { Spec, Version } = await client.call<ApiSwarm>('/swarm')
      await client.call('/swarm/update', {
        method: 'POST',
        query: { version: Version.Index },
        body: { ...Spec, EncryptionConfig: { AutoLockManagers: autolock } },
      })
      io.stdout.write('Swarm updated.\n')
      if (!autolock) return
      const { UnlockKey } = await client.call<{ UnlockKey: string }>('/swarm/unlockkey')
      io.stdout.write(`\n${unlockText(UnlockKey)}`)
    })

  swarm
    .command('info')
    .description("Show this node's part in the cluster")
    .option('--json', 'One JSON document')
    .action(async (flags: { json?: boolean }) => {
      const client = await openClient(context)
      const { Swarm = {} } = await client.call<ApiInfo>('/info')
      if (flags.json) {
        io.stdout.write(`${JSON.stringify(Swarm, null, 2)}\n`)
        return
      }
      io.stdout.write(`State:    ${Swarm.LocalNodeState ?? 'inactive'}\n`)
      if (!Swarm.NodeID) return
      io.stdout.write(
        `Node:     ${Swarm.NodeID}\nManager:  ${Swarm.ControlAvailable ? 'yes' : 'no'}\n`,
      )
      if (!Swarm.ControlAvailable) return
      const nodes = await client.call<ApiNode[]>('/nodes')
      const managers = nodes.filter(({ ManagerStatus }) => ManagerStatus !== undefined)
      const ready = nodes.filter(({ Status }) => Status.State === 'ready')
      io.stdout.write(
        `Nodes:    ${nodes.length}, ${ready.length} ready\nManagers: ${managers.length}\n`,
      )
    })

  return swarm
}

function unlockText(key: string): string {
  return `A restarted manager asks for this key; keep it where it outlives the managers:\n\n    ${key}\n\nUnlock with: skep swarm unlock\n`
}

async function joinText(
  client: { call<T>(path: string): Promise<T> },
  role: 'worker' | 'manager',
  nodeId: string,
): Promise<string> {
  const [{ JoinTokens }, node] = await Promise.all([
    client.call<ApiSwarm>('/swarm'),
    client.call<ApiNode>(`/nodes/${nodeId}`),
  ])
  const token = role === 'worker' ? JoinTokens.Worker : JoinTokens.Manager
  return `To add a ${role} to this swarm, run the following command:\n\n    skep swarm join --token ${token} ${node.ManagerStatus?.Addr ?? ''}\n`
}
