"""The terms of the objective, one module each; see docs/how-to-add-a-term.md.

| term              | settings (`fit:`)      | here                | in the kernels                            |
|-------------------|------------------------|---------------------|-------------------------------------------|
| skin              | vertex_weights         | vertex_weights      | skin tables, `moments`                    |
| joint limits      | limit_weight, limits   | joint_limits        | `StepRules.limit_weight`, `objective`     |
| spine coupling    | spine                  | spine_coupling      | variable tables, `objective`              |
| shoulder targets  | joint_weight of stages | shoulder_targets    | `StepRules.joint_weight`, `objective`     |
| prior of betas    | beta_weight            | betas_prior         | `StepRules.beta_weight`, `betas_terms`    |
| prior of the root | root_prior             | root_prior          | `StepRules.turn_weight`, `.move_weight`   |
| smoothness        | temporal               | temporal_smoothness | `temporal_terms`                          |

All but the first and the last are `ObjectiveTerm`s: on the host they give what a fitted person costs.
"""
