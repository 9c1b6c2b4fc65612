/** What every stored object has. Versions are revisions of the store: one cluster-wide counter. */
export interface ObjectMeta<Kind extends string, ObjectId> {
  readonly kind: Kind
  readonly id: ObjectId
  readonly namespace: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  /** Revision of the last change of any part. Set by the store; what a commit must name to change the object. */
  readonly version: number
  /** Revision of the last change of what a person declared. Set by the store. */
  readonly specVersion: number
  readonly createdAtMs: number
  readonly updatedAtMs: number
}

/** The document as a person declared it, whole, in its dialect. */
export interface Source {
  readonly dialect: 'docker' | 'kubernetes' | 'skep'
  readonly document: unknown
}

export const defaultNamespace = 'default'
