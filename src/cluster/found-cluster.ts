import type { Random } from '../base/index.ts'
import { type InitRequest, initialNetworks } from '../control/index.ts'
import {
  type AnyObject,
  type Cluster,
  type ClusterNode,
  defaultNamespace,
  mintId,
  type NodeId,
} from '../model/index.ts'
import { createRootCa, createUnlockKey, describeRoot, type Keyring } from '../security/index.ts'
import { sealedToken } from './tokens.ts'

const addressPoolDefault = '10.0.0.0/8'
const subnetSizeDefault = 24
const dataPathPortDefault = 4789

/** The objects of a new cluster: itself, its first manager, and the networks that every cluster has. */
export async function foundCluster(
  request: Pick<
    InitRequest,
    'cluster' | 'addressPools' | 'subnetSize' | 'dataPathPort' | 'availability'
  >,
  first: {
    readonly nodeId: NodeId
    readonly hostname: string
    /** Without port. */
    readonly host: string
    /** Of its cluster port. */
    readonly address: string
  },
  { keyring, random, nowMs }: { keyring: Keyring; random: Random; nowMs: number },
): Promise<readonly AnyObject[]> {
  const id = mintId<'cluster'>(random)
  const meta = {
    namespace: defaultNamespace,
    version: 0,
    specVersion: 0,
    createdAtMs: 0,
    updatedAtMs: 0,
  }
  const root = await createRootCa(nowMs)
  const described = await describeRoot(root.certificatePem)
  const seal = (text: string, aad: string) => keyring.seal(new TextEncoder().encode(text), aad)
  const bare = {
    root: { ...described, key: seal(root.keyPem, `${id}/root`) },
    rootRotationInProgress: false,
    addressPools: request.addressPools.length > 0 ? request.addressPools : [addressPoolDefault],
    subnetSize: request.subnetSize || subnetSizeDefault,
    dataPathPort: request.dataPathPort || dataPathPortDefault,
  }
  const cluster: Cluster = {
    kind: 'cluster',
    id,
    ...meta,
    labels: request.cluster.labels,
    name: 'default',
    source: request.cluster.source,
    spec: request.cluster.spec,
    status: {
      ...bare,
      joinTokens: {
        worker: sealedToken(keyring, { id, status: bare }, 'worker'),
        manager: sealedToken(keyring, { id, status: bare }, 'manager'),
      },
      ...(request.cluster.spec.autoLock
        ? { unlockKey: seal(createUnlockKey(), `${id}/unlock`) }
        : {}),
    },
  }
  const node: ClusterNode = {
    kind: 'node',
    id: first.nodeId,
    ...meta,
    labels: {},
    name: first.hostname,
    source: { dialect: 'skep', document: {} },
    spec: { role: 'manager', availability: request.availability },
    description: {
      hostname: first.hostname,
      platform: { architecture: '', os: 'linux' },
      resources: { nanoCpus: 0, memoryBytes: 0, generic: [] },
      engine: { version: '', apiVersion: '', labels: {}, plugins: [] },
      skepVersion: '',
      hostSubnets: [],
    },
    status: { state: 'unknown', message: 'starting', address: first.host },
    manager: { address: first.address, leader: true, reachability: 'reachable' },
  }
  return [cluster, node, ...initialNetworks(random)]
}
