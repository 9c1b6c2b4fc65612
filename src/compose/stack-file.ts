import type {
  HealthcheckBody,
  LimitsBody,
  PlacementBody,
  PortBody,
  ReservationsBody,
  RestartPolicyBody,
  UpdateConfigBody,
} from './service-spec.ts'

/** One stack file, checked and in one form; `undefined` is "not given", so that files can be laid over each other. */
export interface StackFile {
  readonly services: Readonly<Record<string, StackService>>
  readonly networks: Readonly<Record<string, StackNetwork>>
  readonly volumes: Readonly<Record<string, StackVolume>>
  readonly secrets: Readonly<Record<string, StackFileObject>>
  readonly configs: Readonly<Record<string, StackFileObject>>
}

export type Pairs<V = string> = Readonly<Record<string, V>>

export interface StackService {
  readonly image?: string | undefined
  readonly command?: readonly string[] | undefined
  readonly entrypoint?: readonly string[] | undefined
  readonly environment?: Pairs<string | undefined> | undefined
  readonly labels?: Pairs | undefined
  readonly hostname?: string | undefined
  readonly user?: string | undefined
  readonly workingDir?: string | undefined
  readonly tty?: boolean | undefined
  readonly stdinOpen?: boolean | undefined
  readonly readOnly?: boolean | undefined
  readonly init?: boolean | undefined
  readonly isolation?: string | undefined
  readonly stopSignal?: string | undefined
  readonly stopGracePeriodNs?: number | undefined
  readonly dns?: readonly string[] | undefined
  readonly dnsSearch?: readonly string[] | undefined
  readonly extraHosts?: readonly string[] | undefined
  readonly capAdd?: readonly string[] | undefined
  readonly capDrop?: readonly string[] | undefined
  readonly sysctls?: Pairs | undefined
  readonly ulimits?: Pairs<{ readonly soft: number; readonly hard: number }> | undefined
  readonly logging?:
    | { readonly driver?: string | undefined; readonly options?: Pairs | undefined }
    | undefined
  readonly healthcheck?: (HealthcheckBody & { readonly disable?: boolean }) | undefined
  readonly credentialSpec?:
    | { readonly Config?: string; readonly File?: string; readonly Registry?: string }
    | undefined
  readonly restart?: string | undefined
  readonly ports?: readonly PortBody[] | undefined
  readonly volumes?: readonly StackMount[] | undefined
  readonly secrets?: readonly StackFileReference[] | undefined
  readonly configs?: readonly StackFileReference[] | undefined
  readonly networks?: Pairs<StackServiceNetwork> | undefined
  readonly mode?: string | undefined
  readonly replicas?: number | undefined
  readonly endpointMode?: string | undefined
  readonly deployLabels?: Pairs | undefined
  readonly updateConfig?: Partial<UpdateConfigBody> | undefined
  readonly rollbackConfig?: Partial<UpdateConfigBody> | undefined
  readonly limits?: LimitsBody | undefined
  readonly reservations?: ReservationsBody | undefined
  readonly restartPolicy?: RestartPolicyBody | undefined
  readonly placement?: PlacementBody | undefined
}

export interface StackServiceNetwork {
  readonly aliases: readonly string[]
  readonly driverOpts?: Pairs | undefined
}

export interface StackMount {
  readonly type: string
  readonly source?: string | undefined
  readonly target: string
  readonly readOnly?: boolean | undefined
  readonly consistency?: string | undefined
  readonly propagation?: string | undefined
  readonly noCopy?: boolean | undefined
  readonly subpath?: string | undefined
  readonly tmpfsBytes?: number | undefined
  readonly hasBind: boolean
  readonly hasTmpfs: boolean
}

export interface StackFileReference {
  readonly source: string
  readonly target?: string | undefined
  readonly uid?: string | undefined
  readonly gid?: string | undefined
  readonly mode?: number | undefined
}

export interface StackNetwork {
  readonly external: boolean
  readonly name?: string | undefined
  readonly driver?: string | undefined
  readonly driverOpts?: Pairs | undefined
  readonly internal: boolean
  readonly attachable: boolean
  readonly labels?: Pairs | undefined
  readonly ipam?: { readonly driver: string; readonly subnets: readonly string[] } | undefined
}

export interface StackVolume {
  readonly external: boolean
  readonly name?: string | undefined
  readonly driver?: string | undefined
  readonly driverOpts?: Pairs | undefined
  readonly labels?: Pairs | undefined
}

export interface StackFileObject {
  readonly external: boolean
  readonly name?: string | undefined
  /** Absolute. */
  readonly file?: string | undefined
  readonly labels?: Pairs | undefined
  readonly driver?: string | undefined
  readonly driverOpts?: Pairs | undefined
  readonly templateDriver?: string | undefined
}
