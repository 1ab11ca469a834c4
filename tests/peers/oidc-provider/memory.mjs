// Where npm's oidc-provider keeps what it remembers, for each suite that runs one.

/** Keeps `rows`, so that grants live on while the Provider object is replaced. */
export function memory(rows) {
  const find = (is) => [...rows.values()].find(is);
  return class {
    constructor(model) {
      this.key = (id) => `${model}:${id}`;
    }

    async upsert(id, payload) {
      rows.set(this.key(id), { ...payload });
    }

    async find(id) {
      const row = rows.get(this.key(id));
      return row && { ...row };
    }

    async findByUid(uid) {
      return find((row) => row.kind === 'Session' && row.uid === uid);
    }

    async consume(id) {
      rows.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
      rows.delete(this.key(id));
    }

    async revokeByGrantId(grantId) {
      for (const [key, row] of rows) if (row.grantId === grantId) rows.delete(key);
    }
  };
}
