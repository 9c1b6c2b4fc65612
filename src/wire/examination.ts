/** Something of a node's network that is not as it should be, in words, with what to do about it. */
export interface NetworkFinding {
  readonly what: string
  readonly next: string
  /** Name of the network that it is about. Absent: the whole node. */
  readonly network?: string
}

/** How a node finds its part of the cluster's networks. */
export interface NodeExamination {
  readonly findings: readonly NetworkFinding[]
  /** Differences that audits found and repaired since its daemon started. */
  readonly driftCount: number
  /** Its clock. */
  readonly nowMs: number
  /** Where it takes the packets of cluster networks, and the largest packet of the device that has the address. */
  readonly dataPath?: {
    readonly address: string
    readonly port: number
    readonly mtuBytes: number
  }
}

/** What a node needs to take part in a test of the paths between nodes. */
export interface PathProbeOrder {
  /** 24 bits that tell this test's packets from all others. */
  readonly token: number
  /** This node's number among the senders, below `pathSendersMax`. */
  readonly own: number
  readonly address: string
  readonly port: number
  /** Size of a large packet that this node sends, with all headers, in bytes. */
  readonly largeBytes: number
  readonly peers: readonly { readonly sender: number; readonly address: string }[]
}

/** Nodes that test their paths at a time. */
export const pathSendersMax = 64

/** Packets of one sender that a node saw: as they came in, and behind the host's own firewall. */
export interface PathCounts {
  readonly sender: number
  readonly smallArrived: number
  readonly smallAccepted: number
  readonly largeArrived: number
  readonly largeAccepted: number
}

export interface PathProbe {
  /** Sends to every peer. Resolves with those that the host itself could not send to, and why. */
  send(): Promise<readonly { readonly sender: number; readonly why: string }[]>
  read(): Promise<readonly PathCounts[]>
  close(): Promise<void>
}

/** What looks after a node's network, for those who ask how it is. */
export interface NetworkExaminer {
  examine(): Promise<NodeExamination>
  /** Rejects with UserError where packets can't be counted. */
  openProbe(order: PathProbeOrder): Promise<PathProbe>
}
