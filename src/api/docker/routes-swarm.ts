import { UserError } from '../../base/index.ts'
import { clusterOf } from '../../control/index.ts'
import type { Availability } from '../../model/index.ts'
import { type Call, json, nothing, type Route } from './call.ts'
import type { ApiContext } from './context.ts'
import {
  type SwarmSpecDocument,
  swarmInit,
  swarmJoin,
  swarmSpec,
  swarmUnlock,
} from './documents.ts'
import { DockerError } from './errors.ts'
import { lowerCluster } from './lower-cluster.ts'
import { documentOf, raiseCluster } from './raise.ts'

export function swarmRoutes(api: ApiContext): readonly Route[] {
  const { node } = api
  return [
    {
      method: 'GET',
      path: '/swarm',
      async handle() {
        const cluster = clusterOf(api.requireControl().store.view)
        const { worker, manager } = await node.joinTokens()
        const JoinTokens = { Worker: worker, Manager: manager }
        return json({ ...raiseCluster(cluster), JoinTokens })
      },
    },
    { method: 'POST', path: '/swarm/init', handle: (call) => init(api, call) },
    { method: 'POST', path: '/swarm/join', handle: (call) => join(api, call) },
    {
      method: 'POST',
      path: '/swarm/leave',
      async handle(call) {
        if (node.state().localNodeState === 'inactive') {
          throw new UserError('notInCluster', 'This node is not part of a swarm')
        }
        await node.leave(call.flag('force')).catch((error: unknown) => {
          // A manager that should not leave: the Engine answers with 503.
          const isKept = error instanceof UserError && error.code === 'failedPrecondition'
          throw isKept ? new DockerError(503, error.message, { cause: error }) : error
        })
        api.clusterChanged()
        return nothing()
      },
    },
    { method: 'POST', path: '/swarm/update', handle: (call) => update(api, call) },
    {
      method: 'GET',
      path: '/swarm/unlockkey',
      async handle() {
        api.requireControl()
        return json({ UnlockKey: (await node.unlockKey()) ?? '' })
      },
    },
    {
      method: 'POST',
      path: '/swarm/unlock',
      async handle(call) {
        const { UnlockKey = '' } = call.read(swarmUnlock).value
        const state = node.state().localNodeState
        if (state === 'inactive') {
          throw new UserError('notInCluster', 'This node is not part of a swarm')
        }
        if (state !== 'locked') throw new UserError('conflict', 'swarm is not locked')
        await node.unlock(UnlockKey).catch((error: unknown) => {
          const isWrongKey = error instanceof UserError && error.code === 'forbidden'
          throw isWrongKey ? new DockerError(401, error.message, { cause: error }) : error
        })
        api.clusterChanged()
        return nothing()
      },
    },
  ]
}

function availabilityOf(text: string | undefined): Availability {
  if (!text) return 'active'
  if (text === 'active' || text === 'pause' || text === 'drain') return text
  throw new UserError('invalidInput', `invalid Availability: "${text}"`, {
    next: 'Use active, pause or drain.',
  })
}

function checkNotIn(api: ApiContext): void {
  if (api.node.state().localNodeState === 'inactive') return
  throw new UserError(
    'alreadyInCluster',
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.',
  )
}

async function init(api: ApiContext, call: Call) {
  const request = call.read(swarmInit).value
  // A manager may begin anew with the state it has.
  if (!request.ForceNewCluster) checkNotIn(api)
  const {
    Spec = { Labels: {} },
    AutoLockManagers = false,
    SubnetSize = 0,
    DataPathPort = 0,
  } = request
  const cluster = lowerCluster({
    ...Spec,
    EncryptionConfig: {
      AutoLockManagers: AutoLockManagers || (Spec.EncryptionConfig?.AutoLockManagers ?? false),
    },
  })
  if (Spec.CAConfig?.SigningCACert || Spec.CAConfig?.SigningCAKey) {
    throw new UserError('unsupported', 'a new swarm makes its own certificate authority', {
      next: 'Give yours afterwards: `docker swarm ca --rotate --ca-cert … --ca-key …`.',
    })
  }
  if (SubnetSize !== 0 && (SubnetSize < 8 || SubnetSize > 29)) {
    throw new UserError('invalidInput', `invalid subnet size ${SubnetSize}`, {
      next: 'Use a prefix length from 8 to 29.',
    })
  }
  if (DataPathPort !== 0 && (DataPathPort < 1024 || DataPathPort > 49_151)) {
    throw new UserError(
      'invalidInput',
      'Invalid VXLAN Data Path Port: must be between 1024 and 49151',
    )
  }
  const pools = request.DefaultAddrPool ?? []
  for (const pool of pools) {
    const [, size] = /^\d{1,3}(?:\.\d{1,3}){3}\/(\d{1,2})$/.exec(pool) ?? []
    if (size === undefined || Number(size) > (SubnetSize || 24)) {
      throw new UserError('invalidInput', `invalid CIDR address: ${pool}`, {
        next: 'Write a pool as 10.20.0.0/16; it must hold at least one subnet of the subnet size.',
      })
    }
  }
  const nodeId = await api.node.init({
    listenAddress: request.ListenAddr ?? '',
    advertiseAddress: request.AdvertiseAddr ?? '',
    dataPathAddress: request.DataPathAddr ?? '',
    dataPathPort: DataPathPort,
    forceNewCluster: request.ForceNewCluster ?? false,
    availability: availabilityOf(request.Availability),
    addressPools: pools,
    subnetSize: SubnetSize,
    cluster,
  })
  api.clusterChanged()
  return json(nodeId)
}

async function join(api: ApiContext, call: Call) {
  checkNotIn(api)
  const request = call.read(swarmJoin).value
  if (!request.RemoteAddrs || request.RemoteAddrs.length === 0) {
    throw new UserError('invalidInput', 'at least one RemoteAddr is required to join')
  }
  await api.node.join({
    listenAddress: request.ListenAddr ?? '',
    advertiseAddress: request.AdvertiseAddr ?? '',
    dataPathAddress: request.DataPathAddr ?? '',
    remoteAddresses: request.RemoteAddrs,
    joinToken: request.JoinToken ?? '',
    availability: availabilityOf(request.Availability),
  })
  api.clusterChanged()
  return nothing()
}

async function update(api: ApiContext, call: Call) {
  const control = api.requireControl()
  const version = call.objectVersion('swarm')
  const rotate = {
    worker: call.strictFlag('rotateWorkerToken'),
    manager: call.strictFlag('rotateManagerToken'),
    unlockKey: call.strictFlag('rotateManagerUnlockKey'),
  }
  const spec = call.read(swarmSpec).value
  const declaration = lowerCluster(spec)
  const before = await control.updateCluster(version, declaration)
  const isLockChanged = declaration.spec.autoLock !== before.spec.autoLock
  const isNewlyLocked = declaration.spec.autoLock && isLockChanged
  if (rotate.worker || rotate.manager || rotate.unlockKey || isLockChanged) {
    await api.node.rotateTokens({ ...rotate, unlockKey: rotate.unlockKey || isNewlyLocked })
  }
  await rotateRoot(api, documentOf(before.source), spec)
  return nothing()
}

/** A new signing certificate, or a counted-up `ForceRotate`, begins a rotation of the root. */
async function rotateRoot(
  api: ApiContext,
  before: { readonly CAConfig?: SwarmSpecDocument['CAConfig'] },
  { CAConfig: wanted }: SwarmSpecDocument,
): Promise<void> {
  const cert = wanted?.SigningCACert
  const key = wanted?.SigningCAKey
  if (key && !cert) throw new UserError('invalidInput', 'a signing CA key needs its certificate')
  const isForced = (wanted?.ForceRotate ?? 0) > (before.CAConfig?.ForceRotate ?? 0)
  const isOther = cert !== undefined && cert !== before.CAConfig?.SigningCACert
  if (!isForced && !isOther) return
  await api.node.rotateRoot({
    ...(cert ? { certificatePem: cert } : {}),
    ...(key ? { keyPem: key } : {}),
  })
}
