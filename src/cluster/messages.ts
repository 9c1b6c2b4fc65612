import { isIP } from 'node:net'
import { UserError } from '../base/index.ts'
import {
  type ClusterId,
  idFrom,
  type NetworkId,
  type NodeDescription,
  type NodeId,
  type NodeRole,
  rankOf,
  type TaskId,
  type TaskState,
  type TaskStatus,
  type TaskTemplate,
} from '../model/index.ts'
import {
  type AssignmentChange,
  type ConfigAssignment,
  type FeedChange,
  type HeldFeeds,
  type LogLine,
  type LogOptions,
  type NodeExamination,
  type PathCounts,
  type PathProbeOrder,
  pathSendersMax,
  type SecretAssignment,
  type TaskAssignment,
  type TaskReport,
} from '../wire/index.ts'
import { decodePart, encodePart } from './feed-bytes.ts'
import { Fields } from './read.ts'
import { type Message, makeText } from './transport.ts'

/** Counted up when an older node would misunderstand this one. 2: endpoints and neighbours come as feeds. */
export const protocolVersion = 2
/** The oldest that is still understood. */
export const protocolVersionMin = 2

/** The first message of every stream: what it is for. */
export type Call =
  | { readonly call: 'root' }
  | { readonly call: 'join'; readonly request: AdmissionRequest }
  | { readonly call: 'renew'; readonly csrPem: string }
  /** `held`: digests of the feeds that the node holds. */
  | {
      readonly call: 'session'
      readonly description: NodeDescription
      readonly held: HeldFeeds
    }
  | { readonly call: 'answer'; readonly requestId: string }
  /** `withdraw`: it only just joined, and could not take up its part after all. */
  | { readonly call: 'leave'; readonly withdraw?: true }
  /** A node's daemon has been started again, and will have a session once it is ready. */
  | { readonly call: 'returning' }
  /** Who leads now. Answered once somebody does, or after some seconds. */
  | { readonly call: 'leader' }
  | { readonly call: 'keys' }
  /** A manager asks to take part in keeping the state: how it is reached, and later that its part runs. */
  | { readonly call: 'addManager'; readonly address: string }
  | { readonly call: 'promoteManager'; readonly memberId: string }
  /** One manager asks another, which leads, to ask a node for something. */
  | { readonly call: 'relay'; readonly nodeId: NodeId; readonly request: NodeRequest }
  /** Places of the calling node's plain containers on attachable networks. */
  | { readonly call: 'attach'; readonly wish: AttachmentWish }
  | {
      readonly call: 'detach'
      readonly networkId: NetworkId
      readonly containers: readonly string[]
    }
  | { readonly call: 'attachments' }
export type CallName = Call['call']

/** A plain container that is to be on an attachable network. */
export interface AttachmentWish {
  /** The network by id, name, or the beginning of its id. */
  readonly network: string
  /** What its place is kept under: the name or id of the container. */
  readonly container: string
  /** What resolves to it on the network, on every node. */
  readonly names: readonly string[]
  /** The address it shall have. Absent: any that is free. */
  readonly address?: string
}

/** What a host says that wants to be a node. */
export interface AdmissionRequest {
  readonly token: string
  readonly csrPem: string
  readonly hostname: string
  readonly availability: 'active' | 'pause' | 'drain'
  /** Without port; empty: as the manager sees it. */
  readonly advertiseAddress: string
}

/** What a node gets that was let in, or renewed. */
export interface Admission {
  readonly nodeId: NodeId
  readonly clusterId: ClusterId
  readonly certificatePem: string
  readonly rootsPem: readonly string[]
  readonly managers: readonly ManagerAddress[]
  readonly nodeAddress: string
}

export interface ManagerAddress {
  readonly nodeId: NodeId
  /** `host:port` of its cluster port. */
  readonly address: string
}

/** What a root is asked for with: before anything is trusted. */
export interface RootAnswer {
  readonly certificatePem: string
  readonly nowMs: number
  readonly protocol: number
  readonly skepVersion: string
}

/** What every node with a session is to know beside its assignments. Sent whole, whenever it differs. */
export interface SessionSettings {
  readonly heartbeatMs: number
  /** Silence of the manager after which the node looks for another one. */
  readonly silenceMs: number
  /** The leader first. */
  readonly managers: readonly ManagerAddress[]
  readonly rootsPem: readonly string[]
  /** The node's certificate is to be renewed within this time, because its root retires. Absent: it is fine. */
  readonly renewWithinMs?: number
  /** What people want this node to be. Absent: a manager of a release that did not say. */
  readonly role?: NodeRole
}

/** What a manager that is let in begins its part in keeping the state with. */
export interface MemberAdmission {
  readonly memberId: string
  /** The cluster's name among those who keep its state. */
  readonly token: string
  /** All of them, the new one included. */
  readonly members: readonly { readonly name: string; readonly peerUrl: string }[]
}

/** From the manager, in a session. */
export type ToNode =
  | { readonly type: 'settings'; readonly settings: SessionSettings }
  /** Another one leads, or this node is no manager any more: these are. */
  | { readonly type: 'redirect'; readonly managers: readonly Pick<ManagerAddress, 'address'>[] }
  | { readonly type: 'assignments'; readonly number: number; readonly change: AssignmentChange }
  | { readonly type: 'alive' }
  /** Ends what has this id; `error`: it was not done. */
  | { readonly type: 'done'; readonly id: number; readonly error?: Refusal }
  /** The node opens a stream to `address` and answers there. */
  | {
      readonly type: 'request'
      readonly id: string
      readonly address: string
      readonly request: NodeRequest
    }
  /** The session is over. `isStopping`: the manager's daemon ends, in order. */
  | { readonly type: 'over'; readonly why: Refusal; readonly isStopping: boolean }

/** From the node, in a session. */
export type FromNode =
  | { readonly type: 'heartbeat' }
  /** The node took the message of this number: the manager may send another. */
  | { readonly type: 'taken'; readonly number: number }
  | { readonly type: 'routed'; readonly sequence: number }
  | { readonly type: 'report'; readonly id: number; readonly reports: readonly TaskReport[] }
  | { readonly type: 'describe'; readonly id: number; readonly description: NodeDescription }
  /** The node's daemon ends now, in order: it is to be started again, or its host is being shut down. */
  | { readonly type: 'closing'; readonly because: Closing }

/** Why a daemon ends. */
export type Closing = 'restart' | 'hostStops'

/** What a manager can ask of a node, beside its assignments. */
export type NodeRequest =
  | { readonly kind: 'logs'; readonly taskId: TaskId; readonly options: LogOptions }
  /** A connection that speaks the Engine API, for exec, copies and inspection of its tasks' containers. */
  | { readonly kind: 'engine' }
  /** How the node finds its part of the cluster's networks. */
  | { readonly kind: 'examine' }
  /** A part in a test of the paths between nodes. */
  | { readonly kind: 'probe'; readonly order: PathProbeOrder }
  /** A connection to a TCP port of a task, byte for byte. `by`: who asked, for the node's record. */
  | {
      readonly kind: 'forward'
      readonly taskId: TaskId
      readonly port: number
      readonly by: string
    }

export interface Refusal {
  readonly code: UserError['code']
  readonly message: string
  readonly next?: string
}

/** Names of one container on one network that resolve to it. */
const attachmentNamesMax = 64
/** Length of such a name: a DNS name's. */
const attachmentNameLengthMax = 253

/** Reports in one message. */
export const reportsPerMessageMax = 500
/** Assignment messages under way that the node has not taken yet; changes meanwhile are put together. */
export const assignmentsAheadMax = 2

// ---- Writing ----

export function callMessage(call: Call, skepVersion: string): Message {
  const held = call.call === 'session' ? { held: Object.fromEntries(call.held) } : {}
  return { type: 'call', protocol: protocolVersion, skepVersion, ...call, ...held }
}

export function refusalOf(error: unknown): Refusal {
  return error instanceof UserError
    ? {
        code: error.code,
        message: error.message,
        ...(error.next === undefined ? {} : { next: error.next }),
      }
    : { code: 'internal', message: 'the manager failed; its log says why' }
}

export function refused(error: unknown): Message {
  return { type: 'refused', ...refusalOf(error) }
}

/** The bytes of secrets and configs as base64, since the rest is text; parts of feeds as bytes, since many nodes get the same. */
export function assignmentsMessage(number: number, change: AssignmentChange): Message {
  const withText = <T extends { readonly data: Uint8Array }>(put: readonly T[]) =>
    put.map((value) => ({ ...value, data: Buffer.from(value.data).toString('base64') }))
  const { put, remove } = change.feeds
  const pieces: Uint8Array[] = []
  const feeds = put.map(({ parts, ...feed }) => {
    const encoded = parts.map(encodePart)
    pieces.push(...encoded)
    return { ...feed, sizes: encoded.map(({ length }) => length) }
  })
  const { tasks, node, secrets, configs, ...others } = change
  const beside = {
    ...others,
    secrets: { put: withText(secrets.put), remove: secrets.remove },
    configs: { put: withText(configs.put), remove: configs.remove },
    feeds: { put: feeds, remove },
  }
  return {
    type: 'assignments',
    number,
    change: { ...beside, node, tasks },
    ...(pieces.length > 0 ? { bytes: pieces } : {}),
    [makeText]: () => {
      const put = tasks.put.map(textOfTask).join()
      const tasksText = `{"put":[${put}],"remove":${JSON.stringify(tasks.remove)}}`
      const besideText = withField(JSON.stringify(beside), 'node', textOnce(node))
      return `{"type":"assignments","number":${number},"change":${withField(besideText, 'tasks', tasksText)}}`
    },
  }
}

/** Of what is sent again and again: templates, as often as a workload has replicas, and what a node is told of itself. */
const textOfValue = new WeakMap<object, string>()

function textOnce(value: TaskTemplate | AssignmentChange['node']): string {
  let text = textOfValue.get(value)
  if (text === undefined) {
    text = JSON.stringify(value)
    textOfValue.set(value, text)
  }
  return text
}

function textOfTask({ template, ...others }: TaskAssignment): string {
  return withField(JSON.stringify(others), 'template', textOnce(template))
}

/** Puts a field behind those of an object's text, which has some. */
function withField(object: string, field: string, text: string): string {
  return `${object.slice(0, -1)},"${field}":${text}}`
}

export function logLineMessage({ data, ...line }: LogLine): Message {
  return { type: 'line', ...line, bytes: data }
}

// ---- Reading ----

/** Throws `unsupported` for another version of the protocol, and `invalidInput`. */
export function parseCall(message: unknown): { readonly call: Call; readonly skepVersion: string } {
  const fields = new Fields('call', message)
  const protocol = fields.number('protocol')
  const skepVersion = fields.text('skepVersion', 100)
  checkProtocol(protocol, skepVersion, 'this manager')
  const name = fields.oneOf('call', callNames)
  return { call: parseCallOf(name, fields), skepVersion }
}

const callNames: readonly CallName[] = [
  'root',
  'join',
  'renew',
  'session',
  'answer',
  'leave',
  'returning',
  'leader',
  'keys',
  'addManager',
  'promoteManager',
  'relay',
  'attach',
  'detach',
  'attachments',
]

function parseCallOf(call: CallName, fields: Fields): Call {
  switch (call) {
    case 'join': {
      const request = fields.inside('request')
      return {
        call,
        request: {
          token: request.text('token', 1000),
          csrPem: request.text('csrPem', 10_000),
          hostname: request.text('hostname', 255),
          availability: request.oneOf('availability', ['active', 'pause', 'drain']),
          advertiseAddress: request.text('advertiseAddress', 255),
        },
      }
    }
    case 'renew':
      return { call, csrPem: fields.text('csrPem', 10_000) }
    case 'session':
      return {
        call,
        description: parseDescription(fields.raw('description')),
        held: new Map(fields.has('held') ? Object.entries(fields.record('held')) : []),
      }
    case 'leave':
      return fields.has('withdraw') ? { call, withdraw: true } : { call }
    case 'answer':
      return { call, requestId: fields.text('requestId', 100) }
    case 'addManager':
      return { call, address: fields.text('address', 255) }
    case 'promoteManager':
      return { call, memberId: fields.text('memberId', 100) }
    case 'relay':
      return {
        call,
        nodeId: idFrom(fields.text('nodeId', 100)),
        request: parseRequest(fields.inside('request')),
      }
    case 'attach': {
      const wish = fields.inside('wish')
      const names = wish.list('names', (value) =>
        new Fields('name', { value }).text('value', attachmentNameLengthMax),
      )
      return {
        call,
        wish: {
          network: wish.text('network', 255),
          container: wish.text('container', 255),
          names: names.slice(0, attachmentNamesMax),
          ...(wish.has('address') ? { address: wish.text('address', 100) } : {}),
        },
      }
    }
    case 'detach':
      return {
        call,
        networkId: idFrom(fields.text('networkId', 100)),
        containers: fields.texts('containers'),
      }
    default:
      return { call }
  }
}

/** Whether two versions can talk. Throws `unsupported` with a sentence that names the older one. */
export function checkProtocol(protocol: number, skepVersion: string, self: string): void {
  if (protocol >= protocolVersionMin && protocol <= protocolVersion) return
  throw protocol < protocolVersionMin
    ? new UserError('unsupported', `Skep ${skepVersion} there is too old for ${self}`, {
        next: 'Install the version that the managers run on that host.',
      })
    : new UserError('unsupported', `Skep ${skepVersion} there is newer than ${self} understands`, {
        next: 'Update the managers first, then the workers.',
      })
}

/** The one answer of a call. Rejected as `UserError` when it was refused, or when the stream ended without it. */
export function parseAnswer(message: unknown, type: string): Fields {
  if (message === undefined) {
    throw new UserError('unavailable', 'the manager ended the connection without an answer', {
      next: 'Look into its log.',
    })
  }
  const fields = new Fields('answer', message)
  const got = fields.text('type', 100)
  if (got === 'refused') throw errorOf(parseRefusal(message))
  if (got !== type) throw new UserError('internal', `the manager answered "${got}", not "${type}"`)
  return fields
}

export function parseRefusal(value: unknown): Refusal {
  const fields = new Fields('refusal', value)
  return {
    code: fields.oneOf('code', errorCodes),
    message: fields.text('message', 10_000),
    ...(fields.has('next') ? { next: fields.text('next', 10_000) } : {}),
  }
}

export function errorOf({ code, message, next }: Refusal): UserError {
  return new UserError(code, message, next === undefined ? {} : { next })
}

const errorCodes = [
  'invalidInput',
  'notFound',
  'ambiguous',
  'conflict',
  'outOfSequence',
  'inUse',
  'notManager',
  'alreadyInCluster',
  'notInCluster',
  'locked',
  'failedPrecondition',
  'forbidden',
  'unsupported',
  'unavailable',
  'tooLarge',
  'internal',
] as const satisfies readonly UserError['code'][]

export function parseAdmission(fields: Fields): Admission {
  return {
    nodeId: idFrom(fields.text('nodeId', 100)),
    clusterId: idFrom(fields.text('clusterId', 100)),
    certificatePem: fields.text('certificatePem'),
    rootsPem: fields.texts('rootsPem'),
    managers: fields.list('managers', parseManager),
    nodeAddress: fields.text('nodeAddress', 255),
  }
}

export function parseMemberAdmission(fields: Fields): MemberAdmission {
  return {
    memberId: fields.text('memberId', 100),
    token: fields.text('token', 100),
    members: fields.list('members', (value) => {
      const member = new Fields('member', value)
      return { name: member.text('name', 100), peerUrl: member.text('peerUrl', 255) }
    }),
  }
}

function parseManager(value: unknown): ManagerAddress {
  const fields = new Fields('manager', value)
  return { nodeId: idFrom(fields.text('nodeId', 100)), address: fields.text('address', 255) }
}

export function parseToNode(message: unknown): ToNode {
  const fields = new Fields('message', message)
  const type = fields.text('type', 100)
  switch (type) {
    case 'settings':
      return { type, settings: parseSettings(fields.inside('settings')) }
    case 'redirect':
      return {
        type,
        managers: fields.list('managers', (value) => ({
          address: new Fields('manager', value).text('address', 255),
        })),
      }
    case 'assignments':
      return { type, number: fields.number('number'), change: parseChange(fields) }
    case 'alive':
      return { type }
    case 'done':
      return {
        type,
        id: fields.number('id'),
        ...(fields.has('error') ? { error: parseRefusal(fields.raw('error')) } : {}),
      }
    case 'request':
      return {
        type,
        id: fields.text('id', 100),
        address: fields.text('address', 255),
        request: parseRequest(fields.inside('request')),
      }
    case 'over':
      return {
        type,
        why: parseRefusal(fields.raw('why')),
        isStopping: fields.truth('isStopping'),
      }
    case 'refused':
      return { type: 'over', why: parseRefusal(message), isStopping: false }
    default:
      throw new UserError(
        'unsupported',
        `the manager sent "${type}", which this version does not know`,
      )
  }
}

function parseSettings(fields: Fields): SessionSettings {
  return {
    heartbeatMs: fields.number('heartbeatMs'),
    silenceMs: fields.number('silenceMs'),
    managers: fields.list('managers', parseManager),
    rootsPem: fields.texts('rootsPem'),
    ...(fields.has('renewWithinMs') ? { renewWithinMs: fields.number('renewWithinMs') } : {}),
    ...(fields.has('role') ? { role: fields.oneOf('role', ['manager', 'worker']) } : {}),
  }
}

/** The managers are trusted with what they say of tasks: its shape is the model's own. */
function parseChange(message: Fields): AssignmentChange {
  const fields = message.inside('change')
  const delta = (name: string) => {
    const inside = fields.inside(name)
    return { put: inside.list('put', (value) => value), remove: inside.texts('remove') }
  }
  for (const name of ['tasks', 'networks']) delta(name)
  const change = {
    ...fields.all(),
    full: fields.truth('full'),
    sequence: fields.number('sequence'),
    secrets: withBytes(delta('secrets')),
    configs: withBytes(delta('configs')),
    feeds: parseFeeds(
      delta('feeds'),
      message.has('bytes') ? message.bytes('bytes') : new Uint8Array(),
    ),
  }
  return change as unknown as AssignmentChange
}

/** `bytes`: those of all parts, one after the other. */
function parseFeeds(
  { put, remove }: { readonly put: readonly unknown[]; readonly remove: readonly string[] },
  bytes: Uint8Array,
): AssignmentChange['feeds'] {
  let at = 0
  const changes = put.map((value): FeedChange => {
    const fields = new Fields('feed', value)
    return {
      feed: fields.text('feed'),
      digest: fields.text('digest', 100),
      whole: fields.truth('whole'),
      parts: fields.list('sizes', (size) => {
        const begin = at
        at += new Fields('size', { size }).number('size')
        return decodePart(bytes.subarray(begin, at))
      }),
    }
  })
  return { put: changes, remove }
}

function withBytes(delta: {
  readonly put: readonly unknown[]
  readonly remove: readonly string[]
}) {
  return {
    put: delta.put.map((value): SecretAssignment | ConfigAssignment => {
      const data = new Fields('data', value).text('data', 10_000_000)
      const bytes = new Uint8Array(Buffer.from(data, 'base64'))
      return { ...(value as SecretAssignment), data: bytes }
    }),
    remove: delta.remove,
  }
}

function parseRequest(fields: Fields): NodeRequest {
  const kind = fields.oneOf('kind', ['logs', 'engine', 'forward', 'examine', 'probe'])
  if (kind === 'engine' || kind === 'examine') return { kind }
  if (kind === 'probe') return { kind, order: parseProbeOrder(fields.inside('order')) }
  if (kind === 'forward') {
    const taskId = idFrom<'task'>(fields.text('taskId', 100))
    return { kind, taskId, port: fields.number('port'), by: fields.text('by', 1_000) }
  }
  const options = fields.inside('options')
  const tail = options.raw('tail')
  return {
    kind,
    taskId: idFrom(fields.text('taskId', 100)),
    options: {
      stdout: options.truth('stdout'),
      stderr: options.truth('stderr'),
      follow: options.truth('follow'),
      tail: typeof tail === 'number' ? tail : 'all',
      ...(options.has('sinceMs') ? { sinceMs: options.number('sinceMs') } : {}),
      ...(options.has('untilMs') ? { untilMs: options.number('untilMs') } : {}),
    },
  }
}

function parseProbeOrder(order: Fields): PathProbeOrder {
  const sender = (value: number): number => {
    if (Number.isInteger(value) && value >= 0 && value < pathSendersMax) return value
    throw new UserError('invalidInput', `${value} is no number of a sender`)
  }
  return {
    token: Math.floor(order.number('token')) & 0xff_ffff,
    own: sender(order.number('own')),
    address: order.text('address', 100),
    port: Math.floor(order.number('port')) & 0xffff,
    largeBytes: Math.min(65_000, Math.max(200, Math.floor(order.number('largeBytes')))),
    peers: order.list('peers', (value) => {
      const peer = new Fields('peer', value)
      return { sender: sender(peer.number('sender')), address: peer.text('address', 100) }
    }),
  }
}

export function parseExamination(fields: Fields): NodeExamination {
  const path = fields.has('dataPath') ? fields.inside('dataPath') : undefined
  return {
    findings: fields.list('findings', (value) => {
      const finding = new Fields('finding', value)
      return {
        what: finding.text('what', 4_096),
        next: finding.text('next', 4_096),
        ...(finding.has('network') ? { network: finding.text('network', 255) } : {}),
      }
    }),
    driftCount: fields.number('driftCount'),
    nowMs: fields.number('nowMs'),
    ...(path
      ? {
          dataPath: {
            address: path.text('address', 100),
            port: path.number('port'),
            mtuBytes: path.number('mtuBytes'),
          },
        }
      : {}),
  }
}

export function parsePathCounts(value: unknown): PathCounts {
  const counts = new Fields('counts', value)
  return {
    sender: counts.number('sender'),
    smallArrived: counts.number('smallArrived'),
    smallAccepted: counts.number('smallAccepted'),
    largeArrived: counts.number('largeArrived'),
    largeAccepted: counts.number('largeAccepted'),
  }
}

export function parseLogLine(message: unknown): LogLine {
  const fields = new Fields('line', message)
  return {
    taskId: idFrom(fields.text('taskId', 100)),
    nodeId: idFrom(fields.text('nodeId', 100)),
    stream: fields.oneOf('stream', ['stdout', 'stderr']),
    timestamp: fields.text('timestamp', 100),
    details: fields.record('details'),
    data: fields.bytes('bytes'),
  }
}

export function parseFromNode(message: unknown): FromNode {
  const fields = new Fields('message', message)
  const type = fields.oneOf('type', [
    'heartbeat',
    'taken',
    'routed',
    'report',
    'describe',
    'closing',
  ])
  switch (type) {
    case 'heartbeat':
      return { type }
    case 'taken':
      return { type, number: fields.number('number') }
    case 'routed':
      return { type, sequence: fields.number('sequence') }
    case 'report':
      return { type, id: fields.number('id'), reports: fields.list('reports', parseReport) }
    case 'closing':
      return { type, because: fields.oneOf('because', ['restart', 'hostStops']) }
    default:
      return {
        type,
        id: fields.number('id'),
        description: parseDescription(fields.raw('description')),
      }
  }
}

function parseReport(value: unknown): TaskReport {
  const fields = new Fields('report', value)
  return {
    taskId: idFrom(fields.text('taskId', 100)),
    status: parseStatus(fields.inside('status')),
  }
}

/** Every field anew: what else a node sends does not get into the store. */
function parseStatus(fields: Fields): TaskStatus {
  const container = fields.has('container') ? fields.inside('container') : undefined
  return whole<TaskStatus>({
    state: parseState(fields.text('state', 20)),
    atMs: fields.number('atMs'),
    message: fields.text('message', 4_096),
    error: fields.has('error') ? fields.text('error', 4_096) : undefined,
    container:
      container &&
      whole<NonNullable<TaskStatus['container']>>({
        containerId: container.text('containerId', 100),
        pid: container.number('pid'),
        exitCode: container.has('exitCode') ? container.number('exitCode') : undefined,
      }),
    ready: fields.truth('ready'),
    readyAtMs: fields.has('readyAtMs') ? fields.number('readyAtMs') : undefined,
    unreadyCount: fields.has('unreadyCount') ? fields.number('unreadyCount') : undefined,
    hostPorts: fields.list('hostPorts', (port) => {
      const inside = new Fields('port', port)
      return {
        protocol: inside.oneOf('protocol', ['tcp', 'udp', 'sctp']),
        targetPort: inside.number('targetPort'),
        publishedPort: inside.number('publishedPort'),
      }
    }),
  })
}

function parseState(text: string): TaskState {
  const state = text as TaskState
  if (rankOf(state) > 0) return state
  throw new UserError('invalidInput', `a node reported "${text}", which is no state of a task`)
}

export function parseDescription(value: unknown): NodeDescription {
  const fields = new Fields('description', value)
  const [platform, resources, engine] = [
    fields.inside('platform'),
    fields.inside('resources'),
    fields.inside('engine'),
  ]
  const tls = fields.has('tls') ? fields.inside('tls') : undefined
  return whole<NodeDescription>({
    hostname: fields.text('hostname', 255),
    platform: { architecture: platform.text('architecture', 100), os: platform.text('os', 100) },
    resources: {
      nanoCpus: resources.number('nanoCpus'),
      memoryBytes: resources.number('memoryBytes'),
      generic: resources.list('generic', (resource) => parseGeneric(resource)),
    },
    engine: {
      version: engine.text('version', 100),
      apiVersion: engine.text('apiVersion', 100),
      labels: engine.record('labels'),
      plugins: engine.list('plugins', (plugin) => {
        const inside = new Fields('plugin', plugin)
        return { type: inside.text('type', 255), name: inside.text('name', 255) }
      }),
    },
    skepVersion: fields.text('skepVersion', 100),
    tls: tls && {
      trustRoot: tls.text('trustRoot'),
      issuerSubject: tls.text('issuerSubject'),
      issuerPublicKey: tls.text('issuerPublicKey'),
    },
    encryption: fields.has('encryption') ? parseEncryption(fields.inside('encryption')) : undefined,
    hostSubnets: fields.texts('hostSubnets'),
    address: fields.has('address') ? parseHost(fields.text('address', 255)) : undefined,
    dataPathAddress: fields.has('dataPathAddress')
      ? fields.text('dataPathAddress', 255)
      : undefined,
  })
}

function parseHost(text: string): string {
  if (isIP(text) > 0) return text
  throw new UserError('invalidInput', `"${text}" is no IP address that a node can be reached by`)
}

function parseEncryption(fields: Fields): NonNullable<NodeDescription['encryption']> {
  const how = fields.oneOf('how', ['kernel', 'userspace', 'none'])
  if (how === 'none') return { how, why: fields.text('why', 1_000) }
  const publicKey = fields.text('publicKey', 44)
  if (/^[A-Za-z0-9+/]{43}=$/.test(publicKey)) return { how, publicKey }
  throw new UserError('invalidInput', 'a node sent what is no public key of WireGuard')
}

type Generic = NodeDescription['resources']['generic'][number]

function parseGeneric(value: unknown): Generic {
  const fields = new Fields('resource', value)
  return {
    kind: fields.text('kind', 255),
    value: fields.number('value'),
    ...(fields.has('names') ? { names: fields.texts('names') } : {}),
  }
}

/**
 * A whole object, without the fields that are not there. Every field of the type has to be named: one that is added to the
 * model and not read here does not compile.
 */
function whole<T extends object>(
  fields: {
    readonly [K in keyof Required<T>]: T[K] | undefined
  },
): T {
  const present = Object.entries(fields).filter(([, value]) => value !== undefined)
  return Object.fromEntries(present) as T
}
